"""Settings that go together, by name: `SACAgent(env, **preset("portfolio_weekly"))`."""

from types import MappingProxyType
from typing import Any

from agents.core.errors import ConfigError

PRESETS = MappingProxyType({
    # About 500 weekly transitions: small networks, small batches, decay against overfitting.
    "portfolio_weekly": MappingProxyType({
        "hidden_sizes": (64, 64), "actor_lr": 3e-4, "critic_lr": 3e-4, "alpha_lr": 3e-4, "tau": 0.005, "gamma": 0.99,
        "init_alpha": 0.2, "batch_size": 64, "buffer_size": 10_000, "warmup_steps": 100, "weight_decay": 1e-4,
    }),
    # A month of daily bars of a hundred assets. Frames are kept once, 6 kB each.
    "cross_section": MappingProxyType({
        "time_steps": 30, "assets": 100, "features": 15, "cnn_filters": (64, 32, 16), "lstm_units": (128, 64), "dropout_rate": 0.2,
        "output_dim": 64, "learning_rate": 3e-4, "buffer_size": 100_000, "batch_size": 256,
    }),
    # The widths of a sequence classifier over 78 indicators of one asset, used as an extractor.
    "classifier": MappingProxyType({
        "time_steps": 30, "assets": 1, "features": 78, "cnn_filters": (32, 64), "lstm_units": (256,), "output_dim": 64,
        "attention": True, "buffer_size": 100_000,
    }),
})  # fmt: skip
"""Sequence presets take observations of shape (time_steps, assets, features)."""


def preset(name: str, **changes: Any) -> dict[str, Any]:
    """The arguments of a preset, with `changes` on top. Raises ConfigError for a name that is none."""
    if name not in PRESETS:
        raise ConfigError(f"no preset named {name!r}; known are {', '.join(PRESETS)}")
    return {**PRESETS[name], **changes}
