"""Scores of many resamples of one set of predictions at once: the machinery below `evaluation`."""

from collections.abc import Iterator, Sequence

import numpy as np

ECE_BINS = 15
"""Number of equal-width confidence bins, as in Guo et al. 2017, On Calibration of Modern Neural Networks."""

CHUNK_ELEMENTS = 2**18
"""Resamples are scored in chunks of about this many weights: bounded memory, and it stays in the cache."""

PER_CLASS_METRICS = ("precision", "recall", "f1", "specificity", "auroc")


class Scorer:
    """Predictions prepared so that many weightings of the same images are scored by array operations.

    A bootstrap resample is a weighting: how often each image was drawn. The plain metrics are the weighting
    by ones, so a value and its interval cannot differ in definition.

    names: the metrics, in the order of the columns of `score` and `resample`.
    """

    def __init__(self, labels: np.ndarray, probabilities: np.ndarray, emotions: Sequence[str]) -> None:
        labels, probabilities = _check_arrays(labels, probabilities, len(emotions))
        self.n_images, self.n_classes = probabilities.shape
        self.names = ["accuracy", "balanced_accuracy"]
        for metric in PER_CLASS_METRICS:
            self.names += [*(f"{metric}.{emotion}" for emotion in emotions), f"macro.{metric}"]
        self.names += ["nll", "brier", "ece", "mean_confidence"]
        predictions, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
        self.cells = np.eye(self.n_classes**2)[labels * self.n_classes + predictions]
        truth = np.eye(self.n_classes)[labels]
        likelihood = np.maximum(probabilities[np.arange(self.n_images), labels], np.finfo(np.float64).eps)
        self.sums = np.column_stack(
            [-np.log(likelihood), ((probabilities - truth) ** 2).sum(axis=1), confidence]
        )
        gaps = (predictions == labels) - confidence
        self.gaps = np.eye(ECE_BINS)[assign_bins(confidence, ECE_BINS)] * gaps[:, None]
        self.rankings = [_rank(probabilities[:, c], labels == c) for c in range(self.n_classes)]

    def resample(self, n_resamples: int, seed: int, clusters: np.ndarray | None = None) -> np.ndarray:
        """Return (n_resamples, n_metrics) scores of bootstrap resamples; NaN where undefined."""
        drawn = draw_weights(self.n_images, n_resamples, seed, clusters)
        return np.concatenate([self.score(weights) for weights in drawn])

    def score(self, weights: np.ndarray) -> np.ndarray:
        """Return (R, n_metrics) for weights (R, N), none of whose rows is all zero; NaN where undefined."""
        totals = weights.sum(axis=1)
        confusions = (weights @ self.cells).reshape(-1, self.n_classes, self.n_classes)
        aurocs = np.column_stack([_compute_auroc(weights, *ranking) for ranking in self.rankings])
        nll, brier, confidence = (weights @ self.sums).T / totals
        ece = np.abs(weights @ self.gaps).sum(axis=1) / totals
        return np.column_stack([_score_confusions(confusions, aurocs), nll, brier, ece, confidence])


def _score_confusions(confusions: np.ndarray, aurocs: np.ndarray) -> np.ndarray:
    """Return accuracy, balanced accuracy, then five metrics per class each followed by its macro average."""
    hits = np.diagonal(confusions, axis1=1, axis2=2)
    total = confusions.sum(axis=(1, 2))
    actual, predicted = confusions.sum(axis=2), confusions.sum(axis=1)
    others = total[:, None] - actual
    recall = _divide(hits, actual, np.nan)
    per_class = [
        _divide(hits, predicted, 0.0),
        recall,
        _divide(2 * hits, actual + predicted, 0.0),
        _divide(others - (predicted - hits), others, np.nan),
        aurocs,
    ]
    present = actual > 0
    columns = [hits.sum(axis=1) / total, _average(recall, present)]
    for values in per_class:
        columns += [*values.T, _average(values, present)]
    return np.column_stack(columns)


def _average(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Return the (R,) mean of (R, C) values over the classes that are present and defined."""
    counted = present & ~np.isnan(values)
    return _divide(np.where(counted, values, 0.0).sum(axis=1), counted.sum(axis=1), np.nan)


def _divide(numerator: np.ndarray, denominator: np.ndarray, empty: float) -> np.ndarray:
    result = np.full(np.shape(numerator), empty, dtype=np.float64)
    return np.divide(numerator, denominator, out=result, where=denominator > 0)


def _rank(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the order of the scores, the positives in that order, and where each run of ties starts."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    return order, positive[order].astype(np.float64), starts


def _compute_auroc(
    weights: np.ndarray, order: np.ndarray, positive: np.ndarray, starts: np.ndarray
) -> np.ndarray:
    """Return (R,) shares of the pairs (positive, negative) in the right order, ties counting half.

    The Mann-Whitney form of the area under the ROC curve (Hanley and McNeil 1982).
    """
    ranked = weights[:, order]
    positives = np.add.reduceat(ranked * positive, starts, axis=1)
    negatives = np.add.reduceat(ranked, starts, axis=1) - positives
    below = np.cumsum(negatives, axis=1) - negatives / 2
    wins = np.einsum("rn,rn->r", positives, below)
    return _divide(wins, positives.sum(axis=1) * negatives.sum(axis=1), np.nan)


def draw_rows(rows: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return `n` of the rows, or all where there are fewer, drawn by the seed and in order."""
    return np.sort(np.random.default_rng(seed).choice(rows, min(n, len(rows)), replace=False))


def draw_weights(
    n_images: int, n_resamples: int, seed: int, clusters: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Yield float (R, n_images) chunks of bootstrap weights: how often each image was drawn.

    clusters: (n_images,) any values; images with equal ones, such as those of one person, are drawn together.
    """
    members = np.arange(n_images)
    if clusters is not None:
        members = np.unique(clusters, return_inverse=True)[1]
    n_units = int(members.max()) + 1
    rng = np.random.default_rng(seed)
    chunk = max(1, CHUNK_ELEMENTS // n_images)
    for start in range(0, n_resamples, chunk):
        size = min(chunk, n_resamples - start)
        draws = rng.integers(n_units, size=(size, n_units)) + np.arange(size)[:, None] * n_units
        counts = np.bincount(draws.ravel(), minlength=draws.size).reshape(draws.shape)
        yield counts[:, members].astype(np.float64)


def compute_intervals(names: list[str], values: np.ndarray, level: float) -> dict[str, tuple[float, float]]:
    """Return percentile intervals of (R, n_metrics) values, without the metrics that no resample defines."""
    tails = [(1 - level) / 2, (1 + level) / 2]
    defined = ~np.isnan(values).all(axis=0)
    bounds = np.nanquantile(values[:, defined], tails, axis=0).T
    return {
        name: (float(low), float(high))
        for name, (low, high) in zip(np.array(names)[defined].tolist(), bounds, strict=True)
    }


def assign_bins(confidence: np.ndarray, n_bins: int) -> np.ndarray:
    """Return the bin of each confidence: bin b holds (b / n_bins, (b + 1) / n_bins]."""
    return np.searchsorted(np.arange(1, n_bins) / n_bins, confidence, side="left")


def _check_arrays(
    labels: np.ndarray, probabilities: np.ndarray, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if probabilities.shape != (len(labels), n_classes) or not len(labels):
        raise ValueError(
            f"expected probabilities ({len(labels)}, {n_classes}) and N > 0, found {probabilities.shape}"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"expected integer labels in [0, {n_classes}), found {np.unique(labels)}")
    if (probabilities < 0).any() or not np.allclose(probabilities.sum(axis=1), 1.0, atol=1e-3):
        raise ValueError("expected probabilities that are non-negative and sum to 1 in every row")
    return labels.astype(np.int64), probabilities
