"""Recompute `gradcam` and `robustness` from the scores of single faces."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from fer_lib.cli.recompute.written import Numbers, Written
from fer_lib.evaluation.bootstrap import ECE_BINS, assign_bins
from fer_lib.evaluation.perturbations import CORRUPTIONS, SEVERITIES
from fer_lib.labels import EMOTIONS_8, RARE_EMOTIONS
from fer_lib.metrics_file import read_metrics
from fer_lib.study_sections import RobustnessParams

MAPS = {
    "chosen": "chosen",
    "Grad-CAM, last stage": "last_stage",
    "random": "random",
    "face centre": "face_centre",
}
"""How each map that is compared is called in the table of faces, and in the metrics."""


def recompute_gradcam(stage: Written) -> Numbers:
    """Yield what maps score and gain, where they lie, and how they correlate with those of other weights."""
    faces = stage.read("explain/faces.parquet")
    maps = {key: faces[faces["map"] == title].reset_index(drop=True) for title, key in MAPS.items()}
    chosen = maps["chosen"]
    label, pred, share = chosen["label"], chosen["pred"], chosen["part_background"]
    is_correct = label == pred
    is_active = is_correct & (label != EMOTIONS_8.index("neutral"))
    kept = {"deletion": label >= 0, "insertion": label >= 0, "energy": is_active, "pointing": is_active}
    for measure, mask in kept.items():
        means = {key: table.loc[mask, measure].mean() for key, table in maps.items()}
        yield from ((f"{key}.{measure}", mean) for key, mean in means.items())
        for key, rival in combinations(means, 2):
            if key in ("chosen", "last_stage"):
                gain = means[key] - means[rival]
                yield f"{key}.{measure}.gain_over_{rival}", -gain if measure == "deletion" else gain
    for part, emotion in stage.metrics.select(metric="density")[["split", "class"]].itertuples(index=False):
        of_emotion = chosen[is_correct & (pred == EMOTIONS_8.index(emotion))]
        name = part.replace("_", " ")
        of_map, of_image = (of_emotion[f"{column}_{name}"].mean() for column in ("part", "area"))
        yield f"{part}.density.{emotion}", of_map / of_image
    yield "landmarks_found", chosen["landmarks_found"].mean()
    yield "image.background", chosen["area_background"].mean()
    yield "correct.background", share[is_correct].mean()
    yield "wrong.background", share[~is_correct].mean()
    gaps = share[~is_correct].groupby(pred).mean() - share[is_correct].groupby(pred).mean()
    gaps, n_wrong = gaps.dropna(), pred[~is_correct].value_counts()
    if len(gaps):
        yield "gap.background", np.average(gaps, weights=n_wrong[gaps.index])
    blocks = stage.read("explain/randomised.parquet").drop(columns="row")
    for split, place in {"randomised": -1, "randomised_classifier": 0}.items():
        yield f"{split}.correlation", blocks.iloc[:, place].mean()
        yield f"{split}.flat", blocks.iloc[:, place].isna().mean()
    for shift, column in stage.read("explain/stability.parquet").drop(columns="row").items():
        yield f"moved_{shift}_px.correlation", column.mean()


def recompute_robustness(stage: Written) -> Numbers:
    """Yield scores under corruptions, areas, losses and gains, of drawn faces by factor, and of attacks."""
    tables = stage.read_all("robustness/perturbed")
    follows = tables.pop("saliency").drop(columns="row").mean()
    yield from ((f"{_name(condition)}.saliency_correlation", value) for condition, value in follows.items())
    main = stage.metrics["network"]
    labels = tables[main]["label"]
    correct = {name: _get(table, "pred").eq(labels, axis=0).astype(int) for name, table in tables.items()}
    recalls = {name: of_network.groupby(labels).mean() for name, of_network in correct.items()}
    accuracy, confidence = correct[main].mean(), _get(tables[main], "confidence")
    for condition in follows.index:
        yield f"{_name(condition)}.accuracy", accuracy[condition]
        yield f"{_name(condition)}.macro_recall", recalls[main][condition].mean()
        yield f"{_name(condition)}.ece", _compute_ece(correct[main][condition], confidence[condition])
    corrupted = accuracy[follows.index]
    by_corruption = corrupted.groupby(lambda condition: condition.split("/")[0]).mean()
    by_family = by_corruption.groupby(lambda name: CORRUPTIONS[name].family).mean()
    means = {_name(key): value for key, value in {**by_corruption, **by_family}.items()}
    means |= {"perturbed": corrupted.mean(), "clean": accuracy["clean/0"]}
    yield from ((f"{split}.accuracy", value) for split, value in means.items())
    for split in stage.metrics.select(metric="accuracy.loss")["split"]:
        yield f"{split}.accuracy.loss", means["clean"] - means[split]
    for network, of_network in correct.items():
        for name in by_corruption.index:
            curve = of_network.mean()[["clean/0", *(f"{name}/{severity}" for severity in SEVERITIES[1:])]]
            area = np.trapezoid(curve) / (len(curve) - 1) / curve.iloc[0]
            yield f"{network}.{_name(name)}.relative_area", area
    if stage.params:
        yield from _recompute_gains(stage.params.robustness, correct, recalls, labels, follows.index)
    if (stage.dirs.reports / "robustness" / "counterfactuals.parquet").is_file():
        yield from _recompute_counterfactuals(stage)
    attacks = read_metrics(stage.dirs, "privacy")
    yield from ((key, attacks[key]) for key in attacks if key in stage.metrics and key not in attacks.facts)


def _recompute_gains(
    settings: RobustnessParams,
    correct: Mapping[str, pd.DataFrame],
    recalls: Mapping[str, pd.DataFrame],
    labels: pd.Series,
    corrupted: pd.Index,
) -> Numbers:
    """Yield what one network gains over another; recalls only of emotions with enough faces."""
    counts = labels.value_counts()
    for title, (a, b) in settings.comparisons.items():
        yield f"{title}.clean.gain", (correct[a] - correct[b])["clean/0"].mean()
        yield f"{title}.accuracy.gain", (correct[a] - correct[b])[corrupted].mean().mean()
        gains = (recalls[a] - recalls[b])[corrupted].mean(axis=1)
        yield f"{title}.macro_recall.gain", gains.mean()
        for emotion in RARE_EMOTIONS:
            place = EMOTIONS_8.index(emotion)
            if counts.get(place, 0) >= settings.min_faces:
                yield f"{title}.recall.gain.{emotion}", gains[place]


def _recompute_counterfactuals(stage: Written) -> Numbers:
    """Yield accuracies and gaps by factor of the first network, and what mitigations change."""
    table = stage.read("robustness/counterfactuals.parquet")
    correct = _get(table, "pred").eq(table["label"], axis=0)
    main = correct.columns[0]
    accuracies = correct.groupby([table["factor"], table["value"]]).mean()
    for factor in stage.metrics.select(metric="gap")["split"].str.removeprefix("group."):
        of_factor = accuracies.loc[factor][main]
        yield f"group.{factor}.gap", np.ptp(of_factor)
        for value, accuracy in of_factor.items():
            faces = (table["factor"] == factor) & (table["value"] == value)
            ece = _compute_ece(correct.loc[faces, main], table.loc[faces, f"{main}/confidence"])
            yield from ((f"group.{factor}.{value}.accuracy", accuracy), (f"group.{factor}.{value}.ece", ece))
    of_tones = table["factor"] == "skin_tone"
    recalls = correct.loc[of_tones, main].groupby([table["value"], table["label"]]).mean()
    of_tone = recalls.groupby("value").mean()
    yield "skin_tone.recall_ratio", of_tone.min() / of_tone.max()
    for name, baseline in stage.params.robustness.mitigations.items() if stage.params else ():
        for factor in ("skin_tone", "light_strength"):
            of_factor = accuracies.loc[factor]
            change = (of_factor[name] - of_factor[baseline]).mean()
            yield f"mitigation.{name}.{factor}.accuracy_change", change
            change = np.ptp(of_factor[name]) - np.ptp(of_factor[baseline])
            yield f"mitigation.{name}.{factor}.gap_change", change


def _name(condition: Any) -> str:
    return str(condition).replace(" ", "_").replace("/", ".")


def _get(table: pd.DataFrame, what: str) -> pd.DataFrame:
    """Return the columns `<name>/<what>`, by name."""
    return table.filter(regex=f"/{what}$").rename(columns=lambda column: column.rpartition("/")[0])


def _compute_ece(correct: pd.Series, confidence: pd.Series) -> float:
    shares = confidence.to_numpy(float)
    gaps = np.bincount(assign_bins(shares, ECE_BINS), correct.to_numpy(float) - shares)
    return float(np.abs(gaps).sum() / len(shares))
