"""Severity curves from what networks say of perturbed faces: accuracy, recall, calibration; intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fer_lib.analysis.robustness import CLEAN
from fer_lib.evaluation.bootstrap import ECE_BINS, assign_bins, draw_weights
from fer_lib.evaluation.perturbations import FAMILIES, PERTURBATIONS, SEVERITIES
from fer_lib.metrics_file import flatten_interval, show_interval

CURVES = {"accuracy": "Accuracy", "macro_recall": "Macro recall", "ece": "Calibration error (ECE)"}
"""What is traced over severities: measure to title."""

LEVEL = 0.95
_ENDS = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]


@dataclass(frozen=True)
class Curves:
    """One network's scores of every condition, and of every bootstrap resample of the faces.

    values: measure to float (K,), one per condition of `conditions`.   drawn: measure to float (R, K).
    Measures: accuracy, macro_recall, ece, recall_<emotion>, precision_<emotion>, macro_precision.
    """

    conditions: tuple[str, ...]
    values: Mapping[str, np.ndarray]
    drawn: Mapping[str, np.ndarray]

    def average(self, names: Sequence[str], measure: str = "accuracy") -> tuple[float, float, float]:
        """Return the mean over perturbations and severities 1 to 5, with its interval."""
        columns = [self.conditions.index(f"{name}/{s}") for name in names for s in SEVERITIES[1:]]
        return _summarise(_average(self.values[measure][columns]), _average(self.drawn[measure][:, columns]))

    def measure_area(self, name: str) -> tuple[float, float, float]:
        """Return the area under the accuracy curve, relative to a flat one at the clean value."""
        columns = [self._find(name, severity) for severity in SEVERITIES]
        whole = len(SEVERITIES) - 1

        def relate(values: np.ndarray) -> np.ndarray:
            curve = values[..., columns]
            area, clean = np.trapezoid(curve, axis=-1) / whole, curve[..., 0]
            return np.divide(area, clean, out=np.full_like(area, np.nan), where=clean > 0)

        return _summarise(float(relate(self.values["accuracy"])), relate(self.drawn["accuracy"]))

    def trace(self, name: str, measure: str = "accuracy") -> pd.DataFrame:
        """Return a curve: severity, value, low, high."""
        columns = [self._find(name, severity) for severity in SEVERITIES]
        low, high = np.nanquantile(self.drawn[measure][:, columns], _ENDS, axis=0)
        values = self.values[measure][columns]
        return pd.DataFrame({"severity": list(SEVERITIES), "value": values, "low": low, "high": high})

    def _find(self, name: str, severity: int) -> int:
        return self.conditions.index(f"{name}/{severity}" if severity else f"{CLEAN}/0")


def score_conditions(
    table: pd.DataFrame, emotions: Sequence[str], clusters: np.ndarray, n_resamples: int, seed: int
) -> Curves:
    """Return the scores of a table of `robustness.predict_perturbed`.

    clusters: (N,) any values; faces with equal ones are resampled together. Networks that are scored with
    the same seed and faces are scored on the same resamples, so their differences can be taken.
    """
    labels = table["label"].to_numpy(np.int64)
    conditions = tuple(name.removesuffix("/said") for name in table if name.endswith("/said"))
    said = np.stack([table[f"{name}/said"].to_numpy(np.int64) for name in conditions], axis=1)
    confidence = np.stack([table[f"{name}/confidence"].to_numpy(np.float64) for name in conditions], axis=1)
    weights = np.concatenate(list(draw_weights(len(labels), n_resamples, seed, clusters)))
    once = np.ones((1, len(labels)))
    values = {name: found[0] for name, found in _score(labels, said, confidence, once, emotions).items()}
    return Curves(conditions, values, _score(labels, said, confidence, weights, emotions))


def compare_curves(
    a: Curves, b: Curves, names: Sequence[str], measure: str = "accuracy"
) -> tuple[float, float, float]:
    """Return A - B of the mean over perturbations and severities 1 to 5, with its interval."""
    columns = [a.conditions.index(f"{name}/{s}") for name in names for s in SEVERITIES[1:]]
    value = _average(a.values[measure][columns]) - _average(b.values[measure][columns])
    drawn = _average(a.drawn[measure][:, columns]) - _average(b.drawn[measure][:, columns])
    return _summarise(float(value), drawn)


def list_family(family: str) -> list[str]:
    """Return the perturbations of a family."""
    return [name for name, perturbation in PERTURBATIONS.items() if perturbation.family == family]


def find_first_fallen(
    table: pd.DataFrame, curves: Curves, emotions: Sequence[str], min_faces: int
) -> pd.DataFrame:
    """Return one row per perturbation: the emotion that falls first, how, and into what.

    Columns: perturbation, emotion, severity (the first at which its recall is under half of that on clean
    faces; 0: none falls so far, and the emotion is the one that lost the largest share at 5), recall there,
    recall clean, into: the emotion that is then named most. Emotions of fewer faces, or that are found on
    clean faces no more often than by chance, do not take part; no rows where none does.
    """
    labels = table["label"].to_numpy()
    place = curves.conditions.index(f"{CLEAN}/0")
    clean = [curves.values[f"recall_{emotion}"][place] for emotion in emotions]
    chance = 1 / len(emotions)
    counted = [i for i in range(len(emotions)) if (labels == i).sum() >= min_faces and clean[i] > chance]
    rows = []
    for name in PERTURBATIONS if counted else ():
        recalls = np.array([curves.trace(name, f"recall_{emotions[i]}")["value"] for i in counted])
        shares = recalls / recalls[:, :1]
        fallen = shares < 0.5
        severity = next((s for s in SEVERITIES[1:] if fallen[:, s].any()), 0)
        at = severity or SEVERITIES[-1]
        lowest = int(shares[:, at].argmin())
        index = counted[lowest]
        said = table.loc[labels == index, f"{name}/{at}/said"]
        wrong = said[said != index]
        rows.append(
            {
                "perturbation": name,
                "emotion": emotions[index],
                "severity": severity,
                "recall": recalls[lowest, at],
                "clean": recalls[lowest, 0],
                "into": emotions[int(wrong.mode().iloc[0])] if len(wrong) else "–",
            }
        )
    columns = ["perturbation", "emotion", "severity", "recall", "clean", "into"]
    return pd.DataFrame(rows, columns=columns)


def count_first_fallen(fallen: pd.DataFrame) -> tuple[str, int, str, int]:
    """Return the emotion that falls first most often, under how many perturbations, what it is then taken for
    most often, and under how many perturbations any falls; of `find_first_fallen`. No names where none falls.
    """
    below = fallen[fallen["severity"] > 0]
    if below.empty:
        return "", 0, "", 0
    emotion = below["emotion"].mode().iloc[0]
    of_it = below[below["emotion"] == emotion]
    return str(emotion), len(of_it), str(of_it["into"].mode().iloc[0]), len(below)


def summarise_families(curves: Curves) -> dict[str, tuple[float, float, float]]:
    """Return family to mean accuracy over its perturbations and severities, with its interval."""
    return {family: curves.average(list_family(family)) for family in FAMILIES}


def _score(
    labels: np.ndarray,
    said: np.ndarray,
    confidence: np.ndarray,
    weights: np.ndarray,
    emotions: Sequence[str],
) -> dict[str, np.ndarray]:
    """Return measure to float (R, K) for weights (R, N), said and confidence (N, K)."""
    right = said == labels[:, None]
    total = weights.sum(axis=1, keepdims=True)
    found = {"accuracy": weights @ right / total}
    recalls, precisions = [], []
    with np.errstate(invalid="ignore", divide="ignore"):
        for index, emotion in enumerate(emotions):
            is_label = labels == index
            hits = weights[:, is_label] @ right[is_label]
            recalls.append(hits / weights[:, is_label].sum(axis=1, keepdims=True))
            named = weights @ (said == index)
            precisions.append(np.where(named > 0, hits / named, 0.0))
            found[f"recall_{emotion}"], found[f"precision_{emotion}"] = recalls[-1], precisions[-1]
        present = np.array([(labels == index).any() for index in range(len(emotions))])
        found["macro_recall"] = np.nanmean(np.stack(recalls)[present], axis=0)
        found["macro_precision"] = np.nanmean(np.stack(precisions)[present], axis=0)
    gaps = right - confidence
    bins = assign_bins(confidence, ECE_BINS)
    found["ece"] = sum(np.abs(weights @ np.where(bins == b, gaps, 0.0)) for b in range(ECE_BINS)) / total
    return found


def _average(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of what is defined; a resample may hold no face of a class."""
    defined = ~np.isnan(values)
    total, count = np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _summarise(value: float, drawn: np.ndarray) -> tuple[float, float, float]:
    if np.isnan(drawn).all():
        return float("nan"), float("nan"), float("nan")
    low, high = np.nanquantile(drawn, _ENDS)
    return float(value), float(low), float(high)


def tabulate_areas(curves: Mapping[str, Curves]) -> pd.DataFrame:
    """Return perturbation by network: the area under the accuracy curve relative to clean, as text.

    With its interval for the first network.
    """
    cells = {
        name: [
            show_interval(found.measure_area(p), ".2f") if not place else f"{found.measure_area(p)[0]:.2f}"
            for p in PERTURBATIONS
        ]
        for place, (name, found) in enumerate(curves.items())
    }
    return pd.DataFrame(cells, index=list(PERTURBATIONS)).rename_axis("perturbation")


def score_following(
    followed: pd.DataFrame, clusters: np.ndarray, n_resamples: int, seed: int
) -> dict[str, tuple[float, float, float]]:
    """Return `<perturbation>/<severity>` to the mean rank correlation of heat maps, with its interval.

    followed: what `robustness.Follower` found.   clusters: (N,), as in `score_conditions`.
    """
    drawn = np.concatenate(list(draw_weights(len(followed), n_resamples, seed, clusters)))
    shares = drawn / drawn.sum(axis=1, keepdims=True)
    names = [f"{name}/{severity}" for name in PERTURBATIONS for severity in SEVERITIES[1:]]
    return {
        name: _summarise(values.mean(), shares @ values)
        for name, values in ((name, followed[name].to_numpy(float)) for name in names)
    }


def flatten_curves(curves: Curves, prefix: str) -> dict[str, float]:
    """Return accuracy, macro recall and ECE at severities 1 to 5 as flat metrics, with `_lo` and `_hi`.

    Keys: `<prefix>.<perturbation>.<severity>.<measure>`.
    """
    flat = {}
    for name in PERTURBATIONS:
        for measure in CURVES:
            for step in curves.trace(name, measure).iloc[1:].itertuples():
                key = f"{prefix}.{name.replace(' ', '_')}.{step.severity}.{measure}"
                flat |= flatten_interval(key, (step.value, step.low, step.high))
    return flat


def collect_metrics(
    curves: Mapping[str, Curves],
    gains: Mapping[str, Mapping[str, tuple[float, float, float]]],
    follows: Mapping[str, tuple[float, float, float]],
) -> dict[str, float]:
    """Return flat metrics, of the first network where none is named.

    `clean.accuracy`; `curve.<perturbation>.<severity>.<measure>`; `<family>.accuracy` and
    `<perturbation>.accuracy`, means over severities; `perturbed.<measure>`, over all; `area.<network>.
    <perturbation>`; `<comparison>.<measure>.gain`; `heatmaps.<perturbation>.<severity>`; with `_lo`, `_hi`.
    """
    main, every = next(iter(curves.values())), list(PERTURBATIONS)
    flat = {"clean.accuracy": float(main.values["accuracy"][main.conditions.index(f"{CLEAN}/0")])}
    flat |= flatten_curves(main, "curve")
    for family, values in summarise_families(main).items():
        flat |= flatten_interval(f"{family}.accuracy", values)
    for name in every:
        key = name.replace(" ", "_")
        flat |= flatten_interval(f"{key}.accuracy", main.average([name]))
        for network, found in curves.items():
            flat |= flatten_interval(f"area.{network}.{key}", found.measure_area(name))
    for measure in ("accuracy", "macro_precision", "precision_happy", "precision_neutral"):
        flat |= flatten_interval(f"perturbed.{measure}", main.average(every, measure))
    for title, of_pair in gains.items():
        for measure, values in of_pair.items():
            flat |= flatten_interval(f"{title}.{measure}.gain", values)
    for condition, values in follows.items():
        flat |= flatten_interval(f"heatmaps.{condition.replace(' ', '_').replace('/', '.')}", values)
    return flat
