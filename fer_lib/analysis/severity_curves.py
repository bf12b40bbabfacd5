"""Trace accuracy, recall and calibration over the severities of corruptions, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fer_lib.evaluation.bootstrap import (
    ECE_BINS,
    Bootstrap,
    assign_bins,
    average_defined,
    summarise_draws,
    summarise_unsigned,
)
from fer_lib.evaluation.perturbations import CLEAN, CORRUPTIONS, FAMILIES, SEVERITIES
from fer_lib.intervals import Interval
from fer_lib.metrics_file import Metrics

CURVES = {"accuracy": "accuracy", "macro_recall": "macro recall", "ece": "calibration error (ECE)"}
"""What is traced over severities: measure to title."""

FORMATS = {"accuracy": ".1%", "macro_recall": ".1%", "ece": ".3f"}
"""How pages show each of `CURVES`."""


@dataclass(frozen=True)
class Curves:
    """One network's scores under every condition, on the clean draw and on every resample of the faces.

    conditions: K names, `<corruption>/<severity>`.   scores: float (1 + R, K), as `Bootstrap.score` draws
    them, by accuracy, macro_recall, macro_precision, ece, recall.<emotion>, precision.<emotion>.
    """

    conditions: tuple[str, ...]
    scores: Mapping[str, np.ndarray]

    def average(self, names: Sequence[str], measure: str = "accuracy") -> Interval:
        """Return the mean over corruptions and severities 1 to 5."""
        return _summarise(self._average(names, measure), measure)

    def compare(self, other: "Curves", names: Sequence[str], measure: str = "accuracy") -> Interval:
        """Return what the mean over corruptions and severities 1 to 5 gains over that of another network."""
        return summarise_draws(self._average(names, measure) - other._average(names, measure))

    def score_clean(self) -> Interval:
        """Return the accuracy on clean faces."""
        return summarise_draws(self._clean())

    def compare_clean(self, other: "Curves") -> Interval:
        """Return what the accuracy on clean faces gains over that of another network."""
        return summarise_draws(self._clean() - other._clean())

    def measure_loss(self, names: Sequence[str]) -> Interval:
        """Return the clean accuracy minus the mean over corruptions and severities 1 to 5."""
        return summarise_draws(self._clean() - self._average(names, "accuracy"))

    def measure_area(self, name: str) -> Interval:
        """Return the area under the accuracy curve, relative to a flat one at the clean value."""
        curve = self.scores["accuracy"][:, self._find(name)]
        area, clean = np.trapezoid(curve, axis=1) / (len(SEVERITIES) - 1), curve[:, 0]
        relative = np.divide(area, clean, out=np.full_like(area, np.nan), where=clean > 0)
        return summarise_draws(relative)

    def trace(self, name: str, measure: str = "accuracy") -> list[Interval]:
        """Return the score at each severity, 0 to 5."""
        return [_summarise(self.scores[measure][:, column], measure) for column in self._find(name)]

    def get_values(self, name: str, measure: str = "accuracy") -> np.ndarray:
        """Return float (6,): the scores at severities 0 to 5."""
        return self.scores[measure][0, self._find(name)]

    def _clean(self) -> np.ndarray:
        return self.scores["accuracy"][:, self.conditions.index(f"{CLEAN}/0")]

    def _average(self, names: Sequence[str], measure: str) -> np.ndarray:
        columns = [column for name in names for column in self._find(name)[1:]]
        return average_defined(self.scores[measure][:, columns])

    def _find(self, name: str) -> list[int]:
        conditions = [f"{CLEAN}/0", *(f"{name}/{severity}" for severity in SEVERITIES[1:])]
        return [self.conditions.index(condition) for condition in conditions]


def trace_curves(table: pd.DataFrame, emotions: Sequence[str], bootstrap: Bootstrap) -> Curves:
    """Return the scores of a table of `robustness.predict_perturbed`.

    Networks that are scored with equal bootstraps see the same resamples, so that differences can be taken.
    """
    labels = table["label"].to_numpy(np.int64)
    conditions = tuple(name.removesuffix("/pred") for name in table.columns if name.endswith("/pred"))
    pred = np.stack([table[f"{name}/pred"].to_numpy(np.int64) for name in conditions], axis=1)
    confidence = np.stack([table[f"{name}/confidence"].to_numpy(np.float64) for name in conditions], axis=1)
    is_correct = pred == labels[:, None]
    bins = assign_bins(confidence, ECE_BINS)
    gaps = [np.where(bins == b, is_correct - confidence, 0.0) for b in range(ECE_BINS)]
    present = np.unique(labels)

    def score(weights: np.ndarray) -> np.ndarray:
        total = weights.sum(axis=1, keepdims=True)
        recalls, precisions = [], []
        with np.errstate(invalid="ignore", divide="ignore"):
            for index in range(len(emotions)):
                is_label = labels == index
                hits = weights[:, is_label] @ is_correct[is_label]
                recalls.append(hits / weights[:, is_label].sum(axis=1, keepdims=True))
                n_predicted = weights @ (pred == index)
                precisions.append(np.where(n_predicted > 0, hits / n_predicted, 0.0))
        macros = [
            average_defined(np.stack([of[i] for i in present], axis=-1)) for of in (recalls, precisions)
        ]
        ece = sum(np.abs(weights @ gap) for gap in gaps) / total
        return np.stack([weights @ is_correct / total, *macros, ece, *recalls, *precisions], axis=1)

    names = ["accuracy", "macro_recall", "macro_precision", "ece"]
    names += [f"{measure}.{emotion}" for measure in ("recall", "precision") for emotion in emotions]
    drawn = bootstrap.score(score)
    return Curves(conditions, {name: drawn[:, place] for place, name in enumerate(names)})


def list_family(family: str) -> list[str]:
    """Return the corruptions of a family."""
    return [name for name, corruption in CORRUPTIONS.items() if corruption.family == family]


def find_first_fallen(
    table: pd.DataFrame, curves: Curves, emotions: Sequence[str], min_faces: int
) -> pd.DataFrame:
    """Return one row per corruption: the emotion that falls first, how, and what it is taken for.

    Columns: perturbation, emotion, severity (the first at which its recall is under half of that on clean
    faces; 0: none falls so far, and the emotion is the one that lost the largest share at 5), recall there,
    recall clean, into: the emotion that is then predicted most. Emotions of fewer faces, or that are found on
    clean faces no more often than by chance, do not take part; no rows where none does.
    """
    labels = table["label"].to_numpy()
    place = curves.conditions.index(f"{CLEAN}/0")
    clean = [curves.scores[f"recall.{emotion}"][0, place] for emotion in emotions]
    chance = 1 / len(emotions)
    counted = [i for i in range(len(emotions)) if (labels == i).sum() >= min_faces and clean[i] > chance]
    rows = []
    for name in CORRUPTIONS if counted else ():
        recalls = np.array([curves.get_values(name, f"recall.{emotions[i]}") for i in counted])
        shares = recalls / recalls[:, :1]
        fallen = shares < 0.5
        severity = next((s for s in SEVERITIES[1:] if fallen[:, s].any()), 0)
        at = severity or SEVERITIES[-1]
        lowest = int(shares[:, at].argmin())
        index = counted[lowest]
        pred = table.loc[labels == index, f"{name}/{at}/pred"]
        wrong = pred[pred != index]
        into = emotions[int(wrong.mode().iloc[0])] if len(wrong) else "–"
        rows.append((name, emotions[index], severity, recalls[lowest, at], recalls[lowest, 0], into))
    columns = ["perturbation", "emotion", "severity", "recall", "clean", "into"]
    return pd.DataFrame(rows, columns=columns)


def count_first_fallen(fallen: pd.DataFrame) -> tuple[str, int, str, int]:
    """Return from `find_first_fallen` the emotion that falls first most often, under how many corruptions,
    what it is then taken for most often, and under how many any falls; no names where none falls.
    """
    below = fallen[fallen["severity"] > 0]
    if below.empty:
        return "", 0, "", 0
    emotion = below["emotion"].mode().iloc[0]
    of_it = below[below["emotion"] == emotion]
    return str(emotion), len(of_it), str(of_it["into"].mode().iloc[0]), len(below)


def tabulate_families(curves: Mapping[str, Curves]) -> pd.DataFrame:
    """Return network by family: mean accuracy over its corruptions and severities; `clean` comes first."""
    rows = {
        name: {CLEAN: found.score_clean()} | {f: found.average(list_family(f)) for f in FAMILIES}
        for name, found in curves.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("network")


def tabulate_areas(curves: Mapping[str, Curves]) -> pd.DataFrame:
    """Return corruption by network: the relative area under the accuracy curve, as `Interval`."""
    areas = {name: [found.measure_area(each) for each in CORRUPTIONS] for name, found in curves.items()}
    return pd.DataFrame(areas, index=list(CORRUPTIONS)).rename_axis("perturbation")


def score_following(followed: pd.DataFrame, bootstrap: Bootstrap) -> dict[str, Interval]:
    """Return `<corruption>/<severity>` to the mean of the rank correlations in `robustness.SALIENCY`."""
    names = [f"{name}/{severity}" for name in CORRUPTIONS for severity in SEVERITIES[1:]]
    values = followed[names].to_numpy(float)
    drawn = bootstrap.score(lambda weights: weights @ values / weights.sum(axis=1, keepdims=True))
    return {name: summarise_draws(drawn[:, place]) for place, name in enumerate(names)}


def add_curves(metrics: Metrics, curves: Curves, n_faces: int) -> None:
    """Add a network's clean accuracy, its `CURVES` by corruption and severity, and means of accuracy.

    The split is `clean`, `<corruption>.<severity>`, a corruption, a family, or `perturbed` for all.
    """
    every = list(CORRUPTIONS)
    for name in every:
        for measure in CURVES:
            for severity, score in enumerate(curves.trace(name, measure)):
                if severity:
                    metrics.add(measure, score, split=f"{_name(name)}.{severity}", n=n_faces)
        metrics.add("accuracy", curves.average([name]), split=_name(name), n=n_faces)
    metrics.add("accuracy", curves.trace(every[0])[0], split=CLEAN, n=n_faces)
    for family in FAMILIES:
        metrics.add("accuracy", curves.average(list_family(family)), split=family, n=n_faces)
    for measure in ("accuracy", "macro_precision", "precision.happy", "precision.neutral"):
        if measure in curves.scores:
            metrics.add_scores({measure: curves.average(every, measure)}, split="perturbed", n=n_faces)


def add_areas(metrics: Metrics, areas: pd.DataFrame) -> None:
    """Add what `tabulate_areas` returns: `<network>.<corruption>.relative_area`."""
    for network, column in areas.items():
        for name, area in column.items():
            metrics.add("relative_area", area, model=str(network), split=_name(str(name)))


def add_following(metrics: Metrics, follows: Mapping[str, Interval]) -> None:
    """Add what `score_following` returns: `<corruption>.<severity>.saliency_correlation`."""
    for condition, score in follows.items():
        metrics.add("saliency_correlation", score, split=_name(condition))


def _summarise(drawn: np.ndarray, measure: str) -> Interval:
    return summarise_unsigned(drawn) if measure == "ece" else summarise_draws(drawn)


def _name(condition: str) -> str:
    return condition.replace(" ", "_").replace("/", ".")
