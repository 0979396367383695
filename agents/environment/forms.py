"""What an action means, form by form, as pure maps over any leading dimensions: one truth for one account and for thousands.

`exposure`, `cross_section` and `signal` are signed shares of the position cap, one number a symbol; `weights` is a softmax over the
symbols and cash. On spot a negative share is a wish for nothing. The forms of the four agents are the agents' own maps
(`agents.desk`) and need no map here.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import ConfigError, NotFinite

Floats = NDArray[Any]

EXPOSURE, WEIGHTS, CROSS_SECTION, SIGNAL = "exposure", "weights", "cross_section", "signal"
PORTFOLIO_FORMS = (EXPOSURE, WEIGHTS, CROSS_SECTION, SIGNAL)
SHARPNESS = 5.0
"""Logits per unit of action: from one end of the box to the other a symbol's share grows e^10-fold, enough to hold one asset alone."""
CROSS_SECTION_SIZES = (10, 20)
"""Fewest and most symbols of the cross-section."""
CONFIDENT = 2.0
"""A signal is believed in full from a confidence of one half on."""


def exposure_weights(action: Floats, cap: float) -> Floats:
    """Signed weights [..., n] in [-cap, cap] of actions [..., n] in [-1, 1]: 0 is nothing, 1 the whole position cap."""
    return np.asarray(np.minimum(np.maximum(action, -1.0), 1.0) * cap)


def softmax_weights(action: Floats, cash_buffer: float, cap: float) -> Floats:
    """Weights [..., n] of actions [..., n + 1] in [-1, 1], the last of which is cash.

    Softmax, then each weight cut to `cap`, then all of them shrunk until `cash_buffer` is left; what is cut goes to cash.
    """
    logits = SHARPNESS * np.clip(action, -1.0, 1.0)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights = np.minimum((powers / powers.sum(axis=-1, keepdims=True))[..., :-1], cap)
    total = weights.sum(axis=-1, keepdims=True)
    return np.asarray(weights * np.minimum(1.0, (1.0 - cash_buffer) / np.maximum(total, 1e-12)))


def confident(action: Floats, confidence: Floats | float) -> Floats:
    """`a min(2 c, 1)`: a signal counts as far as its forecast is sure, c in [0, 1]."""
    return np.asarray(action * np.minimum(CONFIDENT * np.asarray(confidence), 1.0))


def action_size(form: str, symbols: int) -> int:
    """Numbers in one action of a portfolio form. Raises ConfigError where the form does not fit so many symbols."""
    low, high = CROSS_SECTION_SIZES
    if form == CROSS_SECTION and not low <= symbols <= high:
        raise ConfigError(f"form {form!r} allocates to {low} to {high} symbols, not {symbols}: choose others with symbols=")
    if form == SIGNAL and symbols != 1:
        raise ConfigError(f"form {form!r} is for one symbol, not {symbols}: give symbols=('BTC/USDT',)")
    if form not in PORTFOLIO_FORMS:
        raise ConfigError(f"form {form!r} is no portfolio form: use one of {', '.join(PORTFOLIO_FORMS)}")
    return symbols + 1 if form == WEIGHTS else symbols


def checked_action(action: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The action as float32 of `shape`, clipped to [-1, 1]. Raises ConfigError for another shape, NotFinite for NaN or infinity."""
    values = np.asarray(action, dtype=np.float32)
    if values.shape != shape:
        raise ConfigError(f"an action has shape {values.shape}: give {shape}")
    if not np.isfinite(values).all():
        raise NotFinite(f"an action holds {values[~np.isfinite(values)].ravel()[0]}: nothing was sent; give numbers in [-1, 1]")
    return np.minimum(np.maximum(values, np.float32(-1.0)), np.float32(1.0))
