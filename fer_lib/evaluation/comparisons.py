"""Compare two ways to train on the same test faces and seeds: paired differences with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fer_lib.evaluation.bootstrap import Bootstrap, average, average_defined
from fer_lib.evaluation.metrics import compare_mcnemar
from fer_lib.metrics_file import Interval


@dataclass(frozen=True)
class Difference:
    """A - B in a share (0 to 1) with its 95 % interval, and Cohen's h, the size of the effect.

    effect: h is 2 asin(sqrt a) - 2 asin(sqrt b) (Cohen 1988, ch. 6): 0.2 counts as small, 0.5 as medium.
    """

    gain: Interval
    p_value: float
    effect: float


def compute_shares(labels: np.ndarray, predictions: np.ndarray, emotions: Sequence[str]) -> dict[str, float]:
    """Return accuracy, macro_recall and recall.<emotion>, each the mean over seeds.

    Parameters
    ----------
    labels
        int (N,).
    predictions
        int (S, N), one row per seed.
    """
    scores = _score(predictions == labels, labels, np.ones((1, len(labels))))[0].mean(axis=0)
    return dict(zip(_name_shares(labels, emotions), map(float, scores), strict=True))


def compare_arms(
    labels: np.ndarray,
    predictions_a: np.ndarray,
    predictions_b: np.ndarray,
    emotions: Sequence[str],
    bootstrap: Bootstrap,
) -> dict[str, Difference]:
    """Return A - B of the shares of `compute_shares`.

    The standard error adds up two variances: that of the faces, from a bootstrap over images or over clusters
    of them, and that of the trainings, from the seeds' differences. Interval and p-value are Student's, with
    the degrees of freedom of Welch and Satterthwaite (Satterthwaite 1946): where trainings vary most, three
    seeds count as three. Two are too few to know how much they vary: the interval then covers 86 % instead of
    95 %. One says nothing of it; the interval is about faces alone.

    Parameters
    ----------
    predictions_a, predictions_b
        int (S, N); seed s of A is paired with seed s of B.

    Raises
    ------
    ValueError
        When the two do not have the same seeds and faces.
    """
    correct_a, correct_b = predictions_a == labels, predictions_b == labels
    if correct_a.shape != correct_b.shape:
        raise ValueError(f"expected the same seeds and faces, found {correct_a.shape} and {correct_b.shape}")
    n_seeds = len(correct_a)
    drawn_a, drawn_b = (
        bootstrap.score(lambda weights, correct=correct: _score(correct, labels, weights))  # type: ignore[misc]
        for correct in (correct_a, correct_b)
    )
    differences = {}
    for i, name in enumerate(_name_shares(labels, emotions)):
        a, b = drawn_a[0, :, i], drawn_b[0, :, i]
        of_faces = np.nanvar((drawn_a[1:, :, i] - drawn_b[1:, :, i]).mean(axis=1), ddof=1)
        of_seeds = np.var(a - b, ddof=1) / n_seeds if n_seeds > 1 else 0.0
        value, error = float(a.mean() - b.mean()), float(np.sqrt(of_faces + of_seeds))
        freedom = (of_faces + of_seeds) ** 2 / of_seeds**2 * (n_seeds - 1) if of_seeds else np.inf
        reach = float(error * stats.t.ppf(0.975, freedom))
        p_value = 2 * stats.t.sf(abs(value) / error, freedom) if error else float(value == 0)
        effect = 2 * (np.arcsin(np.sqrt(a.mean())) - np.arcsin(np.sqrt(b.mean())))
        gain = Interval(value, max(-1.0, value - reach), min(1.0, value + reach))
        differences[name] = Difference(gain, float(p_value), float(effect))
    return differences


def compute_p_value(labels: np.ndarray, predictions_a: np.ndarray, predictions_b: np.ndarray) -> float:
    """Return the p-value of McNemar's exact test over several seeds.

    A face counts for the arm that is correct on it with more seeds; with one seed it is McNemar's own test.
    It says whether these trained networks differ; `Difference.p_value`, whether trainings do.
    """
    wins = (predictions_a == labels).sum(axis=0) - (predictions_b == labels).sum(axis=0)
    return compare_mcnemar(wins > 0, wins < 0).p_value


def summarise_gain(
    labels: np.ndarray, probabilities_a: np.ndarray, probabilities_b: np.ndarray, bootstrap: Bootstrap
) -> tuple[Interval, float]:
    """Return what A adds to B in accuracy, and the p-value of McNemar's exact test.

    Parameters
    ----------
    probabilities_a, probabilities_b
        float (N, C), of the same faces.
    """
    a, b = (probabilities.argmax(axis=1) == labels for probabilities in (probabilities_a, probabilities_b))
    gain = bootstrap.interval(lambda weights: average(a, weights) - average(b, weights))
    return gain, compare_mcnemar(a, b).p_value


def measure_disagreement(predictions_a: np.ndarray, predictions_b: np.ndarray) -> float:
    """Return the share of faces, 0 to 1, on which the predictions of two models, int (N,), differ."""
    return float(np.mean(predictions_a != predictions_b))


def _name_shares(labels: np.ndarray, emotions: Sequence[str]) -> list[str]:
    return ["accuracy", "macro_recall", *(f"recall.{emotions[index]}" for index in np.unique(labels))]


def _score(correct: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the shares (r, S, K) of correct (S, N) under weights (r, N); NaN for an absent class."""
    accuracies = np.stack([average(seed, weights) for seed in correct])
    recalls = []
    for index in np.unique(labels):
        of_class = labels == index
        weights_of_class = weights[:, of_class]
        recalls.append(np.stack([average(seed[of_class], weights_of_class) for seed in correct]))
    macro = average_defined(np.stack(recalls, axis=-1))
    return np.stack([accuracies, macro, *recalls]).T
