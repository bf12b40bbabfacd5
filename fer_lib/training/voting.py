"""Turn logits into probabilities, and let several networks vote."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import softmax

MIN_PROBABILITY = 1e-12


def compute_softmax(logits: np.ndarray) -> np.ndarray:
    """Return float64 (N, C) probabilities."""
    return softmax(logits.astype(np.float64), axis=1)


def fit_weights(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return float64 (M,) weights, summing to 1, with which M networks' soft vote has the least NLL.

    `probabilities` are float (M, N, C) on a validation split, `labels` int (N,). The problem is convex in the
    weights, so the optimum does not depend on where the search starts.
    """
    of_label = probabilities[:, np.arange(len(labels)), labels].astype(np.float64)

    def compute_nll(scores: np.ndarray) -> tuple[float, np.ndarray]:
        weights = softmax(scores)
        mixed = np.maximum(weights @ of_label, MIN_PROBABILITY)
        slope = -(of_label / mixed).mean(axis=1)
        return float(-np.log(mixed).mean()), weights * (slope - weights @ slope)

    return softmax(minimize(compute_nll, np.zeros(len(probabilities)), jac=True, method="L-BFGS-B").x)


def vote(probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return float64 (N, C), the weighted mean of (M, N, C) probabilities."""
    return np.tensordot(weights, probabilities.astype(np.float64), axes=1)
