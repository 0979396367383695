"""What a session says of itself, even where one of its rooms cannot."""

from agents.core.instruments import Symbol
from agents.engine import Engine
from daemon.door import Door
from daemon.settings import Settings
from daemon.status import Status
from daemon.wiring import engine_config


def test_a_room_that_cannot_describe_itself_is_told_and_ends_nothing():
    status = Status("s1", {"mode": "x"}, Engine(engine_config(Settings(), (Symbol("BTC/USDT"),), 1, 0.0)), Door(), dict)
    status.details |= {"well": lambda: {"age_s": 1.0}, "ill": lambda: {}["nothing"]}
    told = status.snapshot()
    assert told["well"] == {"age_s": 1.0}
    assert told["ill"] == {"error": "KeyError: 'nothing'"}
    assert told["ready"] is False
