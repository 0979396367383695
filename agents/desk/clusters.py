"""What belongs together: a shrunk covariance, clusters of what moves alike, and how many independent bets a book holds.

scikit-learn and scipy's clustering are imported when the first matrix is estimated: together they take about 112 MB and one to two seconds, which
a desk without cluster limit and parametric quantile does not pay.
"""

import numpy as np

from agents.desk.question import Integers
from agents.desk.tail import Floats

FLOOR = 1e-8
"""Least eigenvalue of a covariance as a share of its mean: what is estimated to be riskless is not."""


def load() -> None:
    """Import the libraries now, so that the first decision need not."""
    import scipy.cluster.hierarchy  # noqa: F401
    import sklearn.covariance  # noqa: F401


def shrunk_covariance(returns: Floats) -> Floats:
    """Covariance [n, n] about zero of finite returns [S, n], shrunk to a multiple of the identity (Ledoit & Wolf 2004).

    Positive definite also where columns are equal, constant, or more than rows.
    """
    from sklearn.covariance import ledoit_wolf

    matrix: Floats = np.asarray(ledoit_wolf(np.asarray(returns, dtype=np.float64), assume_centered=True)[0])
    least = FLOOR * max(float(np.trace(matrix)) / len(matrix), FLOOR)
    result: Floats = (matrix + matrix.T) / 2 + least * np.eye(len(matrix))
    return result


def correlation_of(covariance: Floats) -> Floats:
    """Correlation [n, n] of a positive definite covariance."""
    deviation = np.sqrt(np.diagonal(covariance))
    result: Floats = np.clip(covariance / np.outer(deviation, deviation), -1.0, 1.0)
    return result


def clusters(correlation: Floats, threshold: float) -> Integers:
    """Cluster of each symbol [n], numbered in the order of their first members.

    Average linkage on the distance `sqrt((1 - rho) / 2)` (Mantegna 1999), cut where it is that of a correlation of `threshold`.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    n = len(correlation)
    if n == 1:
        return np.zeros(1, dtype=np.int64)
    distance = np.sqrt(np.maximum((1.0 - correlation) / 2.0, 0.0))
    upper = distance[np.triu_indices(n, 1)]
    labels = fcluster(linkage(upper, "average"), np.sqrt((1.0 - threshold) / 2.0) + 1e-12, "distance")
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    return np.asarray(order[inverse], dtype=np.int64)


def effective_bets(weights: Floats, covariance: Floats) -> float:
    """Effective number of independent bets of a book [n]: its squared diversification ratio (Choueifaty & Coignard 2008).

    1 where all that is held moves as one; n for n independent positions of equal risk; 0 for no position.
    """
    variance = float(weights @ covariance @ weights)
    if variance <= 0.0:
        return 0.0
    return float(np.abs(weights) @ np.sqrt(np.diagonal(covariance))) ** 2 / variance
