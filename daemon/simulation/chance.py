"""All chance of a simulation: named streams from one seed, so that a draw more in one place moves no draw elsewhere."""

import random


class Chance:
    """Streams of pseudo-random numbers. The same seed and name give the same stream in every process."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def stream(self, name: str) -> random.Random:
        """A stream of its own; text seeds are hashed by SHA-512, not by the interpreter's salted hash."""
        return random.Random(f"{self.seed}/{name}")


def chosen(rng: random.Random, probability: float) -> bool:
    """True with the given probability."""
    return rng.random() < probability
