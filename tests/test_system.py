"""The four agents as one object: the seed's own lines, the same weights as the daemon serves, and files that are whole or refused."""

import asyncio
import hashlib
from pathlib import Path

import numpy as np
import pytest

import agents
from agents import Experience, MultiAgentTradingSystem
from agents.core.errors import ConfigError, DataError, ModelError, NotFinite, SpecMismatch
from agents.core.events import NewWeights, Stamp
from agents.desk.decision import EngineConfig
from agents.desk.limits import RiskState
from agents.engine import Engine
from agents.market.observation import ACTION_SIZES, SPEC_HASH, STATE_SIZES
from agents.serving import labels
from agents.system import JointAction, Situation
from tests.engine_world import BTC, ETH, World

SMALL = {"hidden_sizes": (16, 16), "batch_size": 16, "replay_buffer_size": 2000}

USAGE = """
# Initialize system
rl_system = MultiAgentTradingSystem(
    device='cuda',
    learning_rate=3e-4,
    batch_size=256
)

# Get trading action
state = get_current_state()
action = await rl_system.get_action(state)

# Update with experience
reward = calculate_reward()
next_state = get_next_state()
rl_system.update(state, action, reward, next_state)
"""
ONLINE = """
# During trading loop
experience = Experience(state, action, reward, next_state, done)
rl_system.add_experience(experience)

# Periodic updates
if step % update_frequency == 0:
    rl_system.train_step()
"""
OFFLINE = """
# Load historical data
dataset = load_historical_trades()

# Train agents
rl_system.train_offline(dataset, epochs=100)
"""
PERSISTENCE = """
# Save
rl_system.save_all_agents("models/rl_agents/")

# Load
rl_system.load_all_agents("models/rl_agents/")
"""


def system(**changes) -> MultiAgentTradingSystem:
    return MultiAgentTradingSystem(**{**SMALL, **changes})


def states(rng: np.random.Generator, rows: int | None = None) -> dict[str, np.ndarray]:
    return {
        agent: rng.standard_normal((size,) if rows is None else (rows, size)).astype(np.float32) for agent, size in STATE_SIZES.items()
    }


def transition(rng: np.random.Generator, rows: int | None = 2, reward: float = 0.1) -> Experience:
    shapes = {agent: (size,) if rows is None else (rows, size) for agent, size in ACTION_SIZES.items()}
    actions = {agent: np.tanh(rng.standard_normal(shape)).astype(np.float32) for agent, shape in shapes.items()}
    return Experience(states(rng, rows), actions, reward, states(rng, rows), False)


def act(trader: MultiAgentTradingSystem, state: object, explore: float = 0.0) -> JointAction:
    return asyncio.run(trader.get_action(state, explore))


def run(code: str, names: dict[str, object]) -> None:
    """The code as it stands, awaits included."""
    body = "".join(f"    {line}\n" for line in code.splitlines())
    kept = "globals().update({k: v for k, v in locals().items()})"
    exec(f"async def snippet():\n    global rl_system\n{body}    {kept}\n", names)
    asyncio.run(names["snippet"]())  # type: ignore[operator]


@pytest.mark.slow
def test_the_seeds_lines_run_as_they_are_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    names: dict[str, object] = {
        "MultiAgentTradingSystem": agents.MultiAgentTradingSystem, "Experience": agents.Experience,
        "get_current_state": lambda: states(rng), "get_next_state": lambda: states(rng), "calculate_reward": lambda: 0.3,
        "done": False, "step": 0, "update_frequency": 1, "load_historical_trades": lambda: [transition(rng) for _ in range(20)],
    }  # fmt: skip
    for lines in (USAGE, ONLINE, OFFLINE, PERSISTENCE):
        run(lines, names)
    trader = names["rl_system"]
    assert isinstance(trader, MultiAgentTradingSystem)
    assert {agent: sac.updates for agent, sac in trader.learner.agents.items()} == dict.fromkeys(STATE_SIZES, 100)
    assert {agent: actions.shape for agent, actions in names["action"].items()} == {a: (n,) for a, n in ACTION_SIZES.items()}  # type: ignore[attr-defined]


def test_every_setting_of_the_configuration_is_taken():
    trader = MultiAgentTradingSystem(
        learning_rate=1e-3, batch_size=64, replay_buffer_size=500, gamma=0.9, tau=0.01, alpha=0.1, automatic_entropy_tuning=False,
        reward_scale=2.0, hidden_sizes=[32, 32],
    )  # fmt: skip
    sac = trader.learner.agents["risk"]
    assert (sac.config.learning_rate, sac.config.batch_size, sac.config.gamma, sac.config.tau) == (1e-3, 64, 0.9, 0.01)
    assert (sac.config.alpha, sac.config.automatic_entropy_tuning, sac.config.policy_hiddens) == (0.1, False, (32, 32))
    assert trader.learner.rings["risk"].capacity == 500
    for wrong in ({"device": "tpu"}, {"batch_size": 0}, {"learning_rate": 0.0}, {"gamma": 1.5}):
        with pytest.raises(ConfigError):
            system(**wrong)


def test_the_first_action_is_the_prior_and_noise_moves_it():
    trader, seen = system(), states(np.random.default_rng(0), rows=3)
    assert all(not actions.any() for actions in act(trader, seen).values())
    noisy = act(trader, seen, explore=1.0)
    assert {agent: actions.shape for agent, actions in noisy.items()} == {agent: (3, n) for agent, n in ACTION_SIZES.items()}
    assert all(np.abs(actions).max() > 0.1 for actions in noisy.values())


def test_one_agents_state_is_known_by_its_width():
    trader = system()
    assert set(act(trader, np.zeros(60, np.float32))) == {"risk"}
    for wrong in (np.zeros(61), {"risk": np.zeros(61)}, {"nobody": np.zeros(60)}, 3.0):
        with pytest.raises(SpecMismatch):
            act(trader, wrong)
    with pytest.raises(NotFinite):
        act(trader, np.full(60, np.nan, np.float32))


@pytest.mark.parametrize("unit", [1e-5, 1e4])
def test_what_is_paid_is_learned_in_whatever_unit(unit):
    """The risk agent is paid for its first action: after learning it plays it high."""
    rng = np.random.default_rng(1)
    trader = system(learning_rate=3e-3, gamma=0.0)
    for _ in range(300):
        state, action = states(rng), np.tanh(rng.standard_normal(2)).astype(np.float32)
        trader.add_experience(Experience({"risk": state["risk"]}, {"risk": action}, {"risk": unit * float(action[0])}, state, False))
    for _ in range(400):
        trader.train_step()
    assert act(trader, states(rng, rows=50)["risk"])["risk"][:, 0].mean() > 0.5
    shown = trader.monitoring()["risk"]
    assert {"reward", "entropy", "q_mean", "action_mean", "action_deviation", "reward_trend"} <= set(shown)
    assert shown["updates"] == 400 and len(trader.learning_curves()["risk"]["reward"]) == 400


def test_updates_are_at_most_four_for_a_row():
    rng, trader = np.random.default_rng(1), system()
    for _ in range(20):
        trader.add_experience(transition(rng))
    for _ in range(400):
        trader.train_step()
    assert {sac.updates for sac in trader.learner.agents.values()} == {160}
    assert trader.train_step() == {}


def test_an_offline_data_set_of_columns_takes_its_epochs():
    rng, trader = np.random.default_rng(1), system()
    columns = {
        "state": rng.standard_normal((40, 60)), "action": np.tanh(rng.standard_normal((40, 2))), "reward": rng.standard_normal(40),
        "next_state": rng.standard_normal((40, 60)), "done": np.zeros(40),
    }  # fmt: skip
    curve = trader.train_offline({"risk": columns}, epochs=60)
    assert len(curve) == 60 and trader.learner.agents["risk"].updates == 180  # three batches of 16; more than four for a row
    assert trader.learner.agents["long_term"].updates == 0
    for wrong in ([], {"risk": {**columns, "reward": np.full(40, np.nan)}}, {"nobody": columns}):
        with pytest.raises(DataError):
            trader.train_offline(wrong)


@pytest.mark.parametrize(
    ("part", "value", "error"),
    [
        ("reward", float("nan"), NotFinite),
        ("state", {"risk": np.full(60, np.inf, np.float32)}, NotFinite),
        ("action", {"risk": np.zeros(3, np.float32)}, SpecMismatch),
        ("next_state", {"long_term": np.zeros(100, np.float32)}, SpecMismatch),
    ],
)
def test_a_transition_that_is_unfit_is_refused_whole(part, value, error):
    trader = system()
    zeros = np.zeros(60, np.float32)
    columns = {"state": {"risk": zeros}, "action": {"risk": zeros[:2]}, "reward": 0.0, "next_state": {"risk": zeros}, "done": False}
    with pytest.raises(error):
        trader.add_experience(Experience(**{**columns, part: value}))
    assert trader.learner.experiences == 0


def test_a_saved_system_goes_on_as_if_never_saved(tmp_path):
    rng, one, two = np.random.default_rng(1), system(), system(seed=5)
    data = [transition(rng) for _ in range(30)]
    one.train_offline(data, epochs=3)
    one.save_all_agents(tmp_path)
    two.load_all_agents(tmp_path)
    seen = states(rng, rows=4)
    for agent, actions in act(one, seen).items():
        np.testing.assert_array_equal(actions, act(two, seen)[agent])
    assert one.payload() == two.payload()


@pytest.mark.parametrize("how", ["bit", "cut", "record", "nothing"])
def test_a_damaged_file_is_refused_and_the_old_agents_stay(tmp_path, how):
    trader = system()
    trader.train_offline([transition(np.random.default_rng(2)) for _ in range(20)], epochs=2)
    trader.save_all_agents(tmp_path / "saved")
    acted = act(trader, states(np.random.default_rng(4)))["risk"].tolist()
    trader.save_all_agents(tmp_path / "saved")
    folder = tmp_path / "saved" / "checkpoint"
    file = next(p for p in folder.glob("*.safetensors") if p.stem in (folder / "checkpoint.json").read_text())
    data = bytearray(file.read_bytes())
    match how:
        case "bit":
            data[len(data) // 2] ^= 1
            file.write_bytes(bytes(data))
        case "cut":
            file.write_bytes(bytes(data[: len(data) // 2]))
        case "record":
            (folder / "checkpoint.json").write_text("{}")
        case _:
            pass
    kept = trader.learner
    with pytest.raises(ModelError, match="damaged" if how != "nothing" else "holds no saved agents"):
        trader.load_all_agents(tmp_path / "saved" if how != "nothing" else tmp_path)
    assert trader.learner is kept
    assert act(trader, states(np.random.default_rng(4)))["risk"].tolist() == acted


def test_other_sizes_are_refused_by_name(tmp_path):
    system().save_all_agents(tmp_path)
    with pytest.raises(SpecMismatch, match="sizes"):
        system(hidden_sizes=(8, 8)).load_all_agents(tmp_path)


def test_the_engine_serves_what_was_saved(tmp_path):
    """The file beside the checkpoint is the payload of a NewWeights event: the engine acts as the system does."""
    trader = system(learning_rate=1e-2)
    trader.train_offline([transition(np.random.default_rng(2)) for _ in range(20)], epochs=20)
    trader.save_all_agents(tmp_path)
    payload = (tmp_path / labels.WEIGHTS).read_bytes()
    found = labels.read((tmp_path / labels.LABEL).read_bytes(), "label")
    labels.check(payload, found, "weights")
    engine = Engine(EngineConfig("test", 1, "USDT", (BTC, ETH)))
    event = NewWeights(Stamp(1, 1), found["version"], hashlib.sha256(payload).hexdigest(), SPEC_HASH, payload)
    assert engine.step(event).swapped
    seen = states(np.random.default_rng(7), rows=2)
    acted = act(trader, seen)
    for agent in STATE_SIZES:
        np.testing.assert_array_equal(engine.actors.act(agent, seen[agent]), acted[agent])
        assert acted[agent].any()


def test_of_a_whole_situation_the_joint_decision_is_what_the_engine_decides():
    """The same market and account, the same rooms: wishes, target and safe weights as the engine's own decision."""
    world = World(EngineConfig("test", 1, "USDT", (BTC, ETH), hidden_sizes=(8,), agents=("long_term", "short_term", "risk")))
    world.pass_time(130)
    engine, trader = world.engine, system()
    given = Situation(engine.market, engine.ledger, engine.risk, engine.config.limits)
    peak, orders = engine.risk.peak_equity, len(engine.ledger.orders)
    action = act(trader, given)
    assert action.safe is not None and action.target is not None
    assert {agent: actions.shape for agent, actions in action.items()} == {
        "long_term": (2, 4), "short_term": (2, 4), "market_making": (2, 6), "risk": (1, 2)
    }  # fmt: skip
    assert len(action.wishes) == 7 and set(action.safe.weights) == {BTC, ETH}
    assert all(0.0 <= weight <= engine.config.limits.position_cap + 1e-9 for weight in action.safe.weights.values())
    assert (engine.risk.peak_equity, len(engine.ledger.orders)) == (peak, orders)
    fresh = RiskState()
    act(trader, Situation(engine.market, engine.ledger, fresh))
    assert fresh.peak_equity == 0.0
    assert trader.update(given, action, 0.1, given) == {}
    assert trader.learner.experiences == 7


def test_nothing_can_be_decided_without_a_price():
    world = World()
    with pytest.raises(DataError, match="price"):
        act(system(), Situation(world.engine.market, world.engine.ledger))


def test_a_folder_in_which_nothing_can_be_written_is_an_error(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    trader = system()
    with pytest.raises(OSError, match="file"):
        trader.save_all_agents(Path(file))
    assert trader.learner.directory is None
