"""The projection and cvxpy answer a slice of random problems alike; `python -m tests.desk.projection_proof` asks a thousand."""

import numpy as np

from agents.desk.program import CLARABEL
from tests.desk.projection_proof import compare, random_question


def test_same_objective_as_cvxpy_with_every_limit_at_random():
    found = [compare(random_question(np.random.default_rng([5, number]), n=1 + number % 12)) for number in range(150)]
    assert [problem for _, _, problem in found if problem] == []
    how = [solver for solver, _, _ in found]
    assert how.count(CLARABEL) > 90 and how.count("peer_failed") <= 2 and how.count("hedged") == 0
