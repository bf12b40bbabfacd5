"""Draw bootstrap resamples of images as weights, and score all of them by array operations."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from fer_lib.intervals import UNDEFINED, Interval

ECE_BINS = 15
"""Number of equal-width confidence bins, as in Guo et al. 2017, On Calibration of Modern Neural Networks."""

CHUNK_ELEMENTS = 2**18
"""Resamples are scored in chunks of about this many weights: bounded memory, and it stays in the cache."""

TAILS = ((1 - 0.95) / 2, (1 + 0.95) / 2)  # not 0.025: one ulp more, which decides the sixth digit of a tie

PER_CLASS_METRICS = ("precision", "recall", "f1", "specificity", "auroc")


class Scorer:
    """Predictions prepared so that many weightings of the same images are scored by array operations.

    A bootstrap resample is a weighting: how often each image was drawn. The plain metrics are the weighting
    by ones, so a value and its interval cannot differ in definition.

    names: the metrics, in the order of the columns of `score`.
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
    columns = [hits.sum(axis=1) / total, average_defined(recall)]
    for values in per_class:
        columns += [*values.T, average_defined(np.where(present, values, np.nan))]
    return np.column_stack(columns)


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


class Bootstrap:
    """Resamples of N images, as weights: how often each image was drawn (Efron and Tibshirani 1993, ch. 13).

    Two statistics of one bootstrap, or of two with the same images, clusters and seed, see the same
    resamples, so that what they share cancels in their difference.

    clusters: (N,) any values; images with equal ones, such as those of one person, are drawn together.
    """

    def __init__(
        self, n_images: int, n_resamples: int, seed: int, clusters: np.ndarray | None = None
    ) -> None:
        self.n_images, self.n_resamples, self.seed = n_images, n_resamples, seed
        self._members = np.arange(n_images)
        if clusters is not None:
            self._members = np.unique(clusters, return_inverse=True)[1]

    def score(self, statistic: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return (1 + R, ...): a statistic of the images as they are, then of each resample.

        `statistic` returns one row for each of its weights, float64 (r, N): chunks bound the memory.
        """
        return np.concatenate([statistic(weights) for weights in self._draw_chunks()])

    def interval(self, statistic: Callable[[np.ndarray], np.ndarray]) -> Interval:
        """Return a statistic, (r,) for weights (r, N), with its 95% percentile interval."""
        return summarise_draws(self.score(statistic))

    def mean(self, values: np.ndarray, mask: np.ndarray | float = 1.0) -> Interval:
        """Return the mean of (N,) values, of those under `mask` alone, with its interval."""
        return self.interval(lambda weights: average(values, weights * mask))

    def count_units(self, mask: np.ndarray) -> int:
        """Return how many images, or clusters of them, are under a bool (N,) mask: what is drawn as one."""
        return len(np.unique(self._members[mask]))

    def _draw_chunks(self) -> Iterator[np.ndarray]:
        yield np.ones((1, self.n_images))
        n_units = int(self._members.max()) + 1
        rng = np.random.default_rng(self.seed)
        chunk = max(1, CHUNK_ELEMENTS // self.n_images)
        for start in range(0, self.n_resamples, chunk):
            size = min(chunk, self.n_resamples - start)
            draws = rng.integers(n_units, size=(size, n_units)) + np.arange(size)[:, None] * n_units
            counts = np.bincount(draws.ravel(), minlength=draws.size).reshape(draws.shape)
            yield counts[:, self._members].astype(np.float64)


def average(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the (r,) means of (N,) values under weights (r, N); NaN where all weights are zero."""
    return _divide(weights @ values, weights.sum(axis=1), np.nan)


def average_defined(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of what is defined; NaN where nothing is."""
    defined = ~np.isnan(values)
    return _divide(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1), np.nan)


def summarise_draws(drawn: np.ndarray) -> Interval:
    """Return the interval of (1 + R,) scores of `Bootstrap.score`; undefined when its value is."""
    if np.isnan(drawn[0]) or np.isnan(drawn[1:]).all():
        return UNDEFINED
    low, high = np.nanquantile(drawn[1:], TAILS)
    return Interval(float(drawn[0]), float(low), float(high))


def summarise_unsigned(drawn: np.ndarray) -> Interval:
    """Return `summarise_draws` of a measure that resampling biases upwards, such as ECE.

    ECE adds up absolute gaps, and noise makes these larger in resamples. The interval is shifted down by the
    resamples' mean minus the value, though not below 0.
    """
    value, low, high = summarise_draws(drawn)
    if np.isnan(value):
        return UNDEFINED
    bias = float(np.nanmean(drawn[1:])) - value
    return Interval(value, max(0.0, low - bias), high - bias)


def draw_rows(rows: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return `n` of the rows, or all where there are fewer, drawn by the seed and in order."""
    return np.sort(np.random.default_rng(seed).choice(rows, min(n, len(rows)), replace=False))


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
