"""Where only bars were ever told, the flow columns are the same as asking every symbol's flow."""

import numpy as np

from agents.core.events import Bar
from agents.core.instruments import Symbol
from agents.market.columns import FLOW_COLUMNS
from agents.market.history import CandleHistory
from agents.market.state import MarketState
from agents.market.synthetic_candles import random_walk_history
from agents.market.tape.checks import FIELDS
from agents.market.tape.memory import history_tape


def test_flow_columns_of_bars_alone() -> None:
    calm = random_walk_history(3, 90, 4, timeframe="1m", volatility=0.2)
    wild = random_walk_history(3, 90, 5, timeframe="1m", volatility=3.0)
    values = [np.column_stack([getattr(calm, n)[:, 0], getattr(wild, n)[:, 1], getattr(calm, n)[:, 2]]) for n in FIELDS]
    history = CandleHistory((Symbol("A/USDT"), Symbol("B/USDT"), Symbol("C/USDT")), "1m", calm.times, *values)
    state = MarketState(history.symbols)
    for event in history_tape(history).events():
        assert isinstance(event, Bar)
        state.apply(event)
    fallback = state._volatility_1s()
    assert len({round(value, 12) for value in fallback}) == 3
    one_by_one = [state._flows[i].columns(state._books[i], state.now, state.at, fallback[i]) for i in (2, 1, 0)]
    assert state.flow_columns([2, 1, 0]).tolist() == np.array(one_by_one).tolist()
    assert state.flow_columns([]).shape == (0, len(FLOW_COLUMNS))
