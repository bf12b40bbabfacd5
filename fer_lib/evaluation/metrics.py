"""Score predictions by pure functions on arrays: metrics with intervals, paired comparisons, calibration.

Everywhere `labels` is int (N,), `probabilities` is float (N, C) with rows that sum to 1, and `emotions` names
the C columns in order. The predicted class is the most probable one, the first of them when two tie.

A metric that the data do not define (the recall or AUROC of a class without images) is left out of the
result, so that nothing here ever writes NaN. Macro averages run over the classes that occur in `labels`.
Sensitivity is another name for recall and is stored once, as `recall.<emotion>`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from scipy.stats import binomtest

from fer_lib.evaluation.bootstrap import (
    ECE_BINS,
    Bootstrap,
    Scorer,
    assign_bins,
    average,
    summarise_draws,
    summarise_unsigned,
)
from fer_lib.intervals import Interval
from fer_lib.labels import GROUPS, get_group_indices

COVERAGES = (90, 80, 70, 50)
"""Shares of the faces, in percent, at which selective prediction is scored."""


def compute_metrics(
    labels: np.ndarray, probabilities: np.ndarray, emotions: Sequence[str]
) -> dict[str, float]:
    """Return every metric under its name.

    accuracy, balanced_accuracy (= macro.recall), precision|recall|f1|specificity|auroc.<emotion> and macro.*
    (one versus rest; precision and F1 are 0 when their denominator is), nll (nats per image), brier (sum over
    classes, 0 to 2; Brier 1950), ece (Guo et al. 2017, eq. 3) and mean_confidence. Raises ValueError for
    arrays that do not fit.
    """
    scorer = Scorer(labels, probabilities, emotions)
    values = scorer.score(np.ones((1, scorer.n_images)))
    return {name: float(value) for name, value in zip(scorer.names, values[0], strict=True) if value == value}


def score_predictions(
    labels: np.ndarray, probabilities: np.ndarray, emotions: Sequence[str], bootstrap: Bootstrap
) -> dict[str, Interval]:
    """Return every metric of `compute_metrics` with its percentile bootstrap interval.

    A resample that does not define a metric, because it drew no image of a rare class, does not count for
    it. ECE has the interval of `bootstrap.summarise_unsigned`.
    Where every resample gives the same share, as of few faces that are all correct, accuracy, recall,
    precision and specificity get Wilson's interval (1927), whose width is not zero. The group view is
    `score_predictions(group_labels(...), group_probabilities(...), GROUPS, ...)`.
    """
    scorer = Scorer(labels, probabilities, emotions)
    drawn = bootstrap.score(scorer.score)
    found = {name: summarise_draws(values) for name, values in zip(scorer.names, drawn.T, strict=True)}
    found["ece"] = summarise_unsigned(drawn[:, scorer.names.index("ece")])
    labels, predictions = np.asarray(labels), np.asarray(probabilities).argmax(axis=1)
    shares = {"accuracy": np.ones(len(predictions), bool)}
    for label, emotion in enumerate(emotions):
        shares[f"recall.{emotion}"] = labels == label
        shares[f"precision.{emotion}"] = predictions == label
        shares[f"specificity.{emotion}"] = labels != label
    for name, rows in shares.items():
        if found[name].is_defined and found[name].low == found[name].high:
            found[name] = compute_wilson(found[name].value, bootstrap.count_units(rows))
    return {name: interval for name, interval in found.items() if interval.is_defined}


def compute_wilson(share: float, n: int) -> Interval:
    """Return a share of n with Wilson's interval; where n is 0, as of a class never predicted, all of it."""
    if not n:
        return Interval(share, 0.0, 1.0)
    bounds = binomtest(round(share * n), n).proportion_ci(0.95, method="wilson")
    return Interval(share, float(bounds.low), float(bounds.high))


def group_probabilities(probabilities: np.ndarray, emotions: Sequence[str]) -> np.ndarray:
    """Return (N, 3) probabilities of `labels.GROUPS`: the sum over each group's emotions."""
    membership = np.eye(len(GROUPS))[get_group_indices(list(emotions))]
    return np.asarray(probabilities, dtype=np.float64) @ membership


def group_labels(labels: np.ndarray, emotions: Sequence[str]) -> np.ndarray:
    """Return int (N,) indices into `labels.GROUPS` for emotion labels."""
    return np.asarray(get_group_indices(list(emotions)))[labels]


def compare_mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> float:
    """Return the two-sided p-value that two classifiers err equally often on the same images, both bool (N,).

    Exact binomial form of McNemar 1947: under equality, images that one model alone has right split evenly.
    Raises ValueError when the shapes differ.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(f"expected two arrays of one shape, found {a.shape} and {b.shape}")
    n_discordant = int((a != b).sum())
    return float(binomtest(int((a & ~b).sum()), n_discordant).pvalue) if n_discordant else 1.0


def summarise_gain(
    labels: np.ndarray, probabilities_a: np.ndarray, probabilities_b: np.ndarray, bootstrap: Bootstrap
) -> tuple[Interval, float]:
    """Return what A adds to B in accuracy on the same faces, and the p-value of McNemar's exact test."""
    a, b = (probabilities.argmax(axis=1) == labels for probabilities in (probabilities_a, probabilities_b))
    gain = bootstrap.interval(lambda weights: average(a, weights) - average(b, weights))
    return gain, compare_mcnemar(a, b)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the T for which softmax(logits / T) has the least NLL (Guo et al. 2017, sec. 4.2).

    logits: float (N, C) of a validation split; dividing by T keeps every prediction. T lies in [0.05, 20]; it
    ends at a bound when the logits separate the classes perfectly or say nothing about them.
    """
    logits = np.asarray(logits, dtype=np.float64)
    rows = np.arange(len(labels))

    def compute_nll(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float((logsumexp(scaled, axis=1) - scaled[rows, labels]).mean())

    return float(np.exp(minimize_scalar(compute_nll, bounds=(-3.0, 3.0), method="bounded").x))


def compute_reliability(
    labels: np.ndarray, probabilities: np.ndarray, n_bins: int = ECE_BINS
) -> pd.DataFrame:
    """Return one row per equal-width confidence bin: lower, upper, confidence, accuracy (means), count.

    Bins are open on the left and closed on the right, as in Guo et al. 2017. Means of an empty bin are NaN.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    confidence = probabilities.max(axis=1)
    bins = pd.Index(np.arange(n_bins), name="bin")
    frame = pd.DataFrame({"confidence": confidence, "accuracy": probabilities.argmax(axis=1) == labels})
    grouped = frame.astype(np.float64).groupby(assign_bins(confidence, n_bins))
    table = grouped.mean().reindex(bins)
    table.insert(0, "lower", bins / n_bins)
    table.insert(1, "upper", (bins + 1) / n_bins)
    table["count"] = grouped.size().reindex(bins, fill_value=0)
    return table.reset_index(drop=True)


def compute_risk_coverage(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Return the coverage and accuracy of selective prediction, one row per number of faces, surest first.

    The curve of Geifman and El-Yaniv 2017, with accuracy for one minus risk. coverage: share of the faces
    that are predicted.   accuracy: share of these that are correct.
    """
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    correct = (probabilities.argmax(axis=1) == labels)[order]
    covered = np.arange(1, len(labels) + 1)
    return pd.DataFrame({"coverage": covered / len(labels), "accuracy": correct.cumsum() / covered})


def get_accuracy_at(curve: pd.DataFrame, percent: int) -> float:
    """Return the accuracy of `compute_risk_coverage` at a coverage."""
    return float(curve["accuracy"].iloc[max(0, round(percent / 100 * len(curve)) - 1)])
