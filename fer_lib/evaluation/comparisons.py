"""Paired comparisons of two ways to train: the same test faces and seeds, differences with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from fer_lib.evaluation.bootstrap import draw_weights
from fer_lib.evaluation.metrics import bootstrap_difference, compare_mcnemar


@dataclass(frozen=True)
class Difference:
    """A - B in a share (0 to 1) with its 95 % interval, and Cohen's h, the size of the effect.

    effect: h is 2 asin(sqrt a) - 2 asin(sqrt b) (Cohen 1988, ch. 6): 0.2 counts as small, 0.5 as medium.
    """

    value: float
    low: float
    high: float
    p_value: float
    effect: float


def compute_shares(labels: np.ndarray, predictions: np.ndarray, emotions: Sequence[str]) -> dict[str, float]:
    """Return accuracy, macro_recall and recall_<emotion>, each the mean over seeds.

    labels: int (N,).   predictions: int (S, N), one row per seed.
    """
    shares = _score(predictions == labels, np.ones((1, len(labels))), labels, emotions)
    return {name: float(values.mean()) for name, values in shares.items()}


def compare_arms(
    labels: np.ndarray,
    predictions_a: np.ndarray,
    predictions_b: np.ndarray,
    emotions: Sequence[str],
    n_resamples: int,
    seed: int,
    clusters: np.ndarray | None = None,
) -> dict[str, Difference]:
    """Return A - B of the shares of `compute_shares`.

    The standard error adds up two scatters: that of the faces, from a bootstrap over images, or over whole
    clusters of them, (N,) any values; and that of the trainings, from the seeds' differences. Interval and
    p-value are Student's, with the degrees of freedom of Welch and Satterthwaite (Satterthwaite 1946): where
    trainings scatter most, three seeds count as three. Two are too few to know how much they scatter: the
    interval then covers 86 % instead of 95 %. One says nothing of it; the interval is about faces alone.
    Seed s of A is paired with seed s of B.
    Raises ValueError when the two do not have the same seeds and faces.
    """
    right_a, right_b = predictions_a == labels, predictions_b == labels
    if right_a.shape != right_b.shape:
        raise ValueError(f"expected the same seeds and faces, found {right_a.shape} and {right_b.shape}")
    n_seeds, n_images = right_a.shape
    weights = np.concatenate(list(draw_weights(n_images, n_resamples, seed, clusters)))
    drawn_a, drawn_b = (_score(right, weights, labels, emotions) for right in (right_a, right_b))
    every = np.ones((1, n_images))
    by_seed_a, by_seed_b = (_score(right, every, labels, emotions) for right in (right_a, right_b))
    differences = {}
    for name in by_seed_a:
        a, b = by_seed_a[name][0], by_seed_b[name][0]
        of_faces = np.nanvar((drawn_a[name] - drawn_b[name]).mean(axis=1), ddof=1)
        of_seeds = np.var(a - b, ddof=1) / n_seeds if n_seeds > 1 else 0.0
        value, error = float(a.mean() - b.mean()), float(np.sqrt(of_faces + of_seeds))
        freedom = (of_faces + of_seeds) ** 2 / of_seeds**2 * (n_seeds - 1) if of_seeds else np.inf
        reach = error * stats.t.ppf(0.975, freedom)
        p_value = 2 * stats.t.sf(abs(value) / error, freedom) if error else float(value == 0)
        effect = 2 * (np.arcsin(np.sqrt(a.mean())) - np.arcsin(np.sqrt(b.mean())))
        low, high = max(-1.0, value - reach), min(1.0, value + reach)
        differences[name] = Difference(value, float(low), float(high), float(p_value), float(effect))
    return differences


def compute_p_value(labels: np.ndarray, predictions_a: np.ndarray, predictions_b: np.ndarray) -> float:
    """Return the p-value of McNemar's exact test over several seeds.

    A face counts for the arm that names it rightly with more seeds; with one seed it is McNemar's own test.
    It says whether these trained networks differ; `Difference.p_value`, whether trainings do.
    """
    wins = (predictions_a == labels).sum(axis=0) - (predictions_b == labels).sum(axis=0)
    return compare_mcnemar(wins > 0, wins < 0).p_value


def summarise_gain(
    prefix: str,
    labels: np.ndarray,
    probabilities_a: np.ndarray,
    probabilities_b: np.ndarray,
    emotions: Sequence[str],
    **bootstrap: Any,
) -> dict[str, float]:
    """Return what A adds to B as it stands in the metrics JSON: `<prefix>.gain` in accuracy with its bounds
    `gain_lo` and `gain_hi`, and `<prefix>.p_value` of McNemar's exact test.

    probabilities: float (N, C) of the same faces.   bootstrap: as `evaluation.bootstrap_difference` takes it.
    """
    gains = bootstrap_difference(labels, probabilities_a, probabilities_b, emotions, **bootstrap)
    right = (p.argmax(axis=1) == labels for p in (probabilities_a, probabilities_b))
    keys = (f"{prefix}.gain{end}" for end in ("", "_lo", "_hi"))
    p_value = compare_mcnemar(*right).p_value
    return dict(zip(keys, gains["accuracy"], strict=True)) | {f"{prefix}.p_value": p_value}


def measure_disagreement(predictions_a: np.ndarray, predictions_b: np.ndarray) -> float:
    """Return the share of faces, 0 to 1, that two models name differently. Both are int (N,)."""
    return float(np.mean(predictions_a != predictions_b))


def _score(
    right: np.ndarray, weights: np.ndarray, labels: np.ndarray, emotions: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return each share as (R, S): resamples of images by seeds; NaN where none of a class was drawn."""
    shares = {"accuracy": weights @ right.T / weights.sum(axis=1, keepdims=True)}
    recalls = {}
    for index in np.unique(labels):
        of_class = weights[:, labels == index]
        total = of_class.sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):
            recalls[f"recall_{emotions[index]}"] = of_class @ right[:, labels == index].T / total
    return shares | {"macro_recall": np.nanmean(list(recalls.values()), axis=0)} | recalls
