"""Gymnasium's names for the environments: an installed Quartet is a gymnasium plugin, elsewhere `register()` says them."""

import gymnasium

TRADING = "quartet/Trading-v0"


def register() -> None:
    """Make `gymnasium.make("quartet/Trading-v0", ...)` work; called by gymnasium itself where the package is installed."""
    if TRADING not in gymnasium.registry:
        gymnasium.register(TRADING, entry_point="agents.environment.trading:TradingEnvironment")
