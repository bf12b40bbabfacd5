"""Score the variants of a release as users run them, by labels and by the annotators' majority."""

from typing import Literal

import numpy as np

from fer_lib.data.packed import PackedDataset
from fer_lib.evaluation.bootstrap import Bootstrap, average
from fer_lib.evaluation.metrics import fit_temperature, group_labels, group_probabilities, score_predictions
from fer_lib.evaluation.votes import NO_LABEL, label_by_majority
from fer_lib.inference.recognizer import Recognizer
from fer_lib.labels import GROUPS
from fer_lib.metrics_file import Metrics
from fer_lib.training.targets import has_votes

Judge = Literal["label", "majority"]
"""What decides whether a prediction is correct: the data set's label, or the annotators' majority."""

THRESHOLDS = np.arange(100) / 100
CURVE_STEP = 5
"""Of the thresholds every fifth is on the curve that a config keeps."""


def select_judged(data: PackedDataset, split: str, judge: Judge) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of a split on whose emotion `judge` decides, and these emotions, both int (N,)."""
    rows = data.get_rows(split)
    if judge == "label":
        return rows, data.labels[rows]
    labels = label_by_majority(data.take(rows).index, len(data.emotions))
    return rows[labels != NO_LABEL], labels[labels != NO_LABEL]


def fit_vote_temperature(recognizer: Recognizer, data: PackedDataset, judge: Judge) -> float:
    """Return the temperature with which a vote fits validation: it divides the logarithms of the mean."""
    rows, labels = select_judged(data, "val", judge)
    return fit_temperature(np.log(recognizer.compute_probabilities(data.faces[rows])), labels)


def choose_threshold(recognizer: Recognizer, data: PackedDataset, judge: Judge) -> float:
    """Return the confidence, to two digits, below which a network should abstain.

    It has more validation faces on their side than any other: correct ones above it, wrong ones below.
    """
    correct, confidence = _judge_validation(recognizer, data, judge)
    on_its_side = (confidence[:, None] >= THRESHOLDS) == correct[:, None]
    return float(THRESHOLDS[on_its_side.sum(axis=0).argmax()])


def measure_abstention(recognizer: Recognizer, data: PackedDataset, judge: Judge) -> dict[str, list[float]]:
    """Return what abstaining costs and brings on validation: lists `threshold`, `coverage` and `accuracy`.

    coverage: share of the faces that are answered under a threshold.   accuracy: share of these that are
    correct. The network's own threshold is among them; those under which nothing is answered are not.
    """
    correct, confidence = _judge_validation(recognizer, data, judge)
    thresholds = np.union1d(THRESHOLDS[::CURVE_STEP], [recognizer.abstain_below])
    answered = confidence[:, None] >= thresholds
    n_answered = answered.sum(axis=0)
    known = n_answered > 0
    accuracy = (answered & correct[:, None]).sum(axis=0)[known] / n_answered[known]
    curve = {
        "threshold": thresholds[known],
        "coverage": n_answered[known] / len(correct),
        "accuracy": accuracy,
    }
    return {name: values.round(4).tolist() for name, values in curve.items()}


def _judge_validation(
    recognizer: Recognizer, data: PackedDataset, judge: Judge
) -> tuple[np.ndarray, np.ndarray]:
    """Return of every validation face whether its prediction is correct, bool (N,), and its confidence."""
    rows, labels = select_judged(data, "val", judge)
    probabilities = recognizer.compute_probabilities(data.faces[rows])
    return probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)


def score_release(recognizer: Recognizer, data: PackedDataset, judge: Judge) -> dict[str, float]:
    """Return the metrics of a variant on the packed faces.

    Keys: `test.*` and `test_dedup.*` as in `metrics.score_predictions`, of the emotions and, under `.group.`,
    of their groups, with 95% intervals `_lo` to `_hi`; `neutral_as_angry`, the share of neutral faces that
    are called angry. Where annotators voted, `test.majority.*` is judged by their majority, which agrees with
    the label on the share `test.majority.label_agreement` of the faces. On validation, judged by `judge`:
    `val.accuracy`, `val.coverage` (share not abstained), `val.accuracy_answered`, `val.accuracy_abstained`.
    """
    metrics = Metrics("release")
    correct, confidence = _judge_validation(recognizer, data, judge)
    sure = confidence >= recognizer.abstain_below
    metrics.add("accuracy", correct.mean(), split="val")
    metrics.add("coverage", sure.mean(), split="val")
    for title, chosen in {"answered": sure, "abstained": ~sure}.items():
        if chosen.any():
            metrics.add(f"accuracy_{title}", correct[chosen].mean(), split="val")
    unseen = data.get_rows("test", drop_duplicates_of="train")
    judged = {"test": select_judged(data, "test", "label"), "test_dedup": (unseen, data.labels[unseen])}
    if has_votes(data.index):
        judged["test.majority"] = rows, labels = select_judged(data, "test", "majority")
        metrics.add("label_agreement", np.mean(data.labels[rows] == labels), split="test.majority")
    for split, (rows, labels) in judged.items():
        probabilities = recognizer.compute_probabilities(data.faces[rows])
        bootstrap = Bootstrap(len(rows), n_resamples=1000, seed=0, clusters=data.persons[rows])
        groups = group_labels(labels, data.emotions), group_probabilities(probabilities, data.emotions)
        metrics.add_scores(score_predictions(labels, probabilities, data.emotions, bootstrap), split=split)
        metrics.add_scores(score_predictions(*groups, GROUPS, bootstrap), split=f"{split}.group")
        is_neutral = labels == data.emotions.index("neutral")
        if is_neutral.any():
            mistaken = probabilities.argmax(axis=1) == data.emotions.index("angry")
            share = bootstrap.interval(
                lambda weights, mistaken=mistaken, chosen=is_neutral: average(  # type: ignore[misc]
                    mistaken[chosen], weights[:, chosen]
                )
            )
            metrics.add("neutral_as_angry", share, split=split)
        metrics.describe(f"{split}.n_images", len(rows))
    return {key: round(value, 6) for key, value in metrics.flatten().items()}
