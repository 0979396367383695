"""What the learner learned, for people: a table of its newest figures, and learning curves as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from agents.core.errors import ConfigError
from daemon import learner_history
from daemon.control import ask
from daemon.errors import NotRunning
from daemon.view import words

FIGURES = (
    "reward", "entropy", "alpha", "q_mean", "q_spread", "td_error", "critic_loss", "actor_loss", "action_mean", "action_deviation",
    "action_saturation", "critic_gradient", "actor_gradient", "policy_entropy", "policy_saturation", "dormant_share", "effective_rank",
)  # fmt: skip
_COUNTS = ("source", "state", "updates", "experiences", "version", "restarts", "reverts", "processor_share", "starved", "withheld", "error")
_CURVES = ("reward", "q_mean", "td_error", "entropy", "alpha", "action_saturation", "critic_gradient", "dormant_share")


def look(state: Path) -> dict[str, Any]:
    """The learner's status: the running daemon's, or the last in the state folder's history. Raises NotRunning without either."""
    try:
        return {"source": "daemon", **ask(state, "status")["learner"]}
    except NotRunning:
        records = learner_history.read(state / "learner")
        if not records:
            raise
        return {"source": "history", "state": "off", **records[-1]}


def table(status: Mapping[str, Any]) -> RenderableType:
    """Counts, and the figures with a column for each agent."""
    agents = status.get("agents") or {}
    figures = Table(box=None, pad_edge=False)
    figures.add_column("")
    for agent in agents:
        figures.add_column(agent, justify="right")
    for name in FIGURES:
        if any(name in found for found in agents.values()):
            figures.add_row(name, *(f"{found[name]:.4g}" if name in found else "" for found in agents.values()))
    return Group(words({name: status[name] for name in _COUNTS if status.get(name) not in (None, "")}), "", figures)


def curves(records: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draw each figure over the updates, a line for each agent, as PNG. Raises ConfigError without records or matplotlib, or
    where the file cannot be written."""
    if len(records) < 2:
        raise ConfigError("--png: there is no learning to draw yet; let the daemon learn for some seconds first")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("--png needs matplotlib: pip install 'quartet[plot]'") from None
    figure = Figure(figsize=(14, 7), layout="constrained")
    for axes, name in zip(figure.subplots(2, 4).flat, _CURVES, strict=True):
        axes.set_title(name)
        axes.set_xlabel("updates of all agents")
        for agent in dict.fromkeys(agent for record in records for agent in record["agents"]):
            points = [(r["updates"], r["agents"][agent][name]) for r in records if name in r["agents"].get(agent, {})]
            if points:
                axes.plot(*zip(*points, strict=True), label=agent, linewidth=1)
    figure.axes[0].legend(fontsize="small")
    try:
        figure.savefig(file, format="png", dpi=100)
    except OSError as error:
        raise ConfigError(f"--png {file}: cannot be written ({error.strerror})") from None
