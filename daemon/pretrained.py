"""Weights that a training run left, as what a session begins with. Knows no mode."""

import hashlib

from agents.core.errors import ConfigError, ModelError
from agents.core.events import UNSTAMPED, NewWeights
from agents.jobs.weight_files import load_weights
from agents.market.observation import ACTION_SIZES, SPEC_HASH, STATE_SIZES
from agents.serving.actors import Actors
from daemon.errors import Unsafe
from daemon.settings import Settings


def pretrained(settings: Settings) -> tuple[NewWeights, ...]:
    """The event that makes `agents.weights` serve from the first decision on; none where nothing is named.

    Raises ConfigError for weights that are missing, damaged, made for other columns or lack an agent.
    """
    path = settings.agents.weights
    if path is None:
        return ()
    try:
        payload = load_weights(path)
        actors = Actors.from_payload(payload, SPEC_HASH)
    except (ModelError, ConfigError, OSError) as error:
        raise ConfigError(f"agents.weights: {error}") from None
    wanted = {agent: (STATE_SIZES[agent], ACTION_SIZES[agent]) for agent in STATE_SIZES}
    if actors.sizes != wanted:
        raise ConfigError(f"agents.weights: {path} has actors of sizes {actors.sizes}, and the agents are {wanted}: train them again")
    return (NewWeights(UNSTAMPED, actors.version, hashlib.sha256(payload).hexdigest(), SPEC_HASH, payload),)


def refuse_unpromoted(settings: Settings) -> None:
    """Raises Unsafe where weights that nobody promoted would trade real money."""
    if settings.agents.weights is not None:
        raise Unsafe(
            f"agents.weights names {settings.agents.weights}, and a real exchange takes promoted weights only: leave it out, and the "
            "priors trade there; or try the weights with --paper, or on the rehearsal exchange"
        )
