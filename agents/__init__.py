"""Everything that can be computed without touching the world, and a shop window for the names users look for.

The window is lazy (PEP 562): `from agents import SACAgent` loads torch, `import agents` loads nothing.
"""

from importlib import import_module

_WINDOW = {
    "Actors": "agents.serving.actors",
    "CNNLSTMFeatureExtractor": "agents.models.extractors",
    "EnsembleActors": "agents.serving.ensemble",
    "EnsembleAgent": "agents.learning.ensemble",
    "Experience": "agents.market.observation",
    "GaussianActor": "agents.models.actors",
    "Learner": "agents.learning.learner",
    "MultiAgentTradingSystem": "agents.system",
    "QuartetParallelEnv": "agents.environment.parallel",
    "ReplayBuffer": "agents.learning.replay",
    "SACAgent": "agents.learning.agent",
    "SACConfig": "agents.learning.sac",
    "SequenceActor": "agents.serving.sequences",
    "TD3Agent": "agents.learning.td3_agent",
    "TradingEnvironment": "agents.environment.trading",
    "TwinCritic": "agents.models.critics",
}

__all__ = sorted(_WINDOW)  # noqa: PLE0605 - the names are served by __getattr__


def __getattr__(name: str) -> object:
    if name not in _WINDOW:
        raise AttributeError(f"module 'agents' has no attribute {name!r}")
    return getattr(import_module(_WINDOW[name]), name)


def __dir__() -> list[str]:
    return sorted(_WINDOW)
