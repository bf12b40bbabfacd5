import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_lib.training.ensemble import fit_weights, vote


def draw(seed: int, n_models: int = 3, n: int = 400, c: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(c, size=n)
    logits = rng.normal(size=(n_models, n, c)) + 2 * np.eye(c)[labels]
    return np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True), labels


def compute_nll(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())


def test_vote_by_hand():
    probabilities = np.array([[[0.8, 0.2]], [[0.4, 0.6]]])
    assert vote(probabilities, np.array([0.25, 0.75]))[0].tolist() == pytest.approx([0.5, 0.5])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_no_other_weights_fit_validation_better(seed):
    probabilities, labels = draw(seed)
    weights = fit_weights(probabilities, labels)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    best = compute_nll(vote(probabilities, weights), labels)
    others = np.random.default_rng(seed).dirichlet(np.ones(3), size=200)
    assert min(compute_nll(vote(probabilities, other), labels) for other in others) > best - 1e-6


def test_a_member_that_only_guesses_gets_no_weight():
    probabilities, labels = draw(1)
    probabilities[2] = 1 / 7
    assert fit_weights(probabilities, labels)[2] < 0.01
