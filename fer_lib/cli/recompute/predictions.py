"""Score committed predictions again: of the networks, alone and together, and of compressed variants."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    multilabel_confusion_matrix,
    precision_recall_fscore_support,
    recall_score,
    roc_auc_score,
)

from fer_lib.cli.recompute.written import Numbers, Written
from fer_lib.evaluation.bootstrap import ECE_BINS, Bootstrap
from fer_lib.evaluation.metrics import fit_temperature, score_predictions
from fer_lib.labels import GROUP_OF, GROUPS
from fer_lib.metrics_file import build_key
from fer_lib.training.voting import fit_weights, vote


def recompute_table(kind: str, path: Path, frame: pd.DataFrame) -> Numbers:
    """Yield accuracy and macro recall on test by their key, of every network, variant, or arm and seed."""
    if kind == "ablations":
        for column in frame.filter(regex=r"\.emotion$"):
            arm, seed, _ = str(column).rsplit(".", 2)
            yield from _score(arm, f"seed_{seed}.test", frame["label"], frame[column])
        return
    test = frame[frame["split"] == "test"]
    if kind == "predictions":
        classes = test.filter(regex="^logit_").to_numpy().argmax(axis=1)
        yield from _score(path.stem, "test", test["label"], classes)
        return
    labels = _label_rows(path.parents[1], test["row"])
    for variant, classes in _choose_classes(test).items():
        yield from _score(f"{path.stem}.{variant}", "test", labels, classes)


def recompute_evaluation(stage: Written) -> Numbers:
    """Yield what the networks' predictions score on test, alone and together, and which is selected.

    Scores are scikit-learn's. Temperatures, the weights of the vote and, with the packed data, the intervals
    of the selected network, also without duplicates, come from the functions of the notebook.
    """
    networks = list(stage.metrics.select(metric="weight")["model"].str.removeprefix("ensemble."))
    selected = max(networks, key=lambda network: stage.metrics[f"{network}.val.accuracy"])
    yield "selected", selected
    tables = [pd.read_parquet(stage.dirs.reports / "predictions" / f"{name}.parquet") for name in networks]
    names = [str(column) for column in tables[0] if str(column).startswith("logit_")]
    emotions = [name.removeprefix("logit_") for name in names]
    chosen = networks.index(selected)
    group_of = np.array([GROUPS.index(GROUP_OF[emotion]) for emotion in emotions])
    for split in ("val", "test"):
        faces = [table[table["split"] == split] for table in tables]
        labels = faces[0]["label"].to_numpy(np.int64)
        logits = np.stack([part[names].to_numpy(np.float64) for part in faces])
        alone = softmax(logits, axis=2)
        found = {"": alone[chosen], **dict(zip(networks, alone, strict=True))}
        if split == "val":
            weights = fit_weights(alone, labels)
            temperatures = np.array([fit_temperature(of_network, labels) for of_network in logits])
        else:
            calibrated = softmax(logits / temperatures[:, None, None], axis=2)
            in_groups = {"": calibrated[chosen], **dict(zip(networks, calibrated, strict=True))}
            seen = [column.replace("logit_", "views_") for column in names]
            views = np.stack([part[seen].to_numpy(np.float64) for part in faces])
            found |= {
                "tta": views[chosen],
                "ensemble": vote(alone, weights),
                "ensemble_tta": vote(views, weights),
            }
        for model, p in found.items():
            for metric, value in _measure(labels, p, emotions):
                yield build_key(metric, model, split), value
            if split == "test":
                grouped = in_groups.get(model, p) @ np.eye(len(GROUPS))[group_of]
                for metric, value in _measure(group_of[labels], grouped, GROUPS):
                    yield build_key(metric, model, "test.group"), value
    if stage.faces and stage.params:
        data, settings = stage.faces, stage.params.evaluation
        unseen = np.isin(data.get_rows("test"), data.get_rows("test", drop_duplicates_of="train"))
        for split, kept in {"test": np.ones_like(unseen), "test_dedup": unseen}.items():
            persons = data.persons[data.get_rows("test")][kept]
            bootstrap = Bootstrap(len(persons), settings.n_resamples, settings.seed, persons)
            intervals = score_predictions(labels[kept], found[""][kept], emotions, bootstrap)
            for metric, (value, low, high) in intervals.items():
                key = build_key(metric, "", split)
                yield from ((key, value), (f"{key}_lo", low), (f"{key}_hi", high))


def recompute_compression(stage: Written) -> Numbers:
    """Yield scores on validation, gains and p-values on test, and the sizes of the files that are here."""
    correct: dict[str, np.ndarray] = {}
    for network, table in stage.read_all("compression").items():
        for split, part in table.groupby("split"):
            labels = _label_rows(stage.dirs.reports, part["row"])
            for variant, classes in _choose_classes(part).items():
                yield from _score(f"{network}.{variant}", str(split), labels, classes)
                if split == "test":
                    correct[f"{network}.{variant}"] = classes == labels.to_numpy()
    baseline = f"{stage.metrics['baseline']}.float32"
    for name, own in correct.items():
        network, _, variant = name.partition(".")
        for title, other in {"baseline": baseline, "float_reference": f"{network}.float32"}.items():
            if other != name:
                yield f"{name}.{title}.gain", own.mean() - correct[other].mean()
                yield f"{name}.{title}.p_value", compute_mcnemar(own, correct[other])
        file = stage.dirs.compressed / network / f"{variant}.onnx"
        if file.is_file():
            yield f"{name}.bytes", file.stat().st_size
    for title in ("int8", "pruned", "smallest"):
        if chosen := stage.metrics.get(f"{title}.variant"):
            yield f"{title}.test.accuracy", correct[chosen].mean()


def _choose_classes(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return by variant the class of the largest logit, from columns `<variant>/<emotion>`."""
    variants = dict.fromkeys(str(column).partition("/")[0] for column in table if "/" in str(column))
    return {name: table.filter(regex=f"^{name}/").to_numpy().argmax(axis=1) for name in variants}


def _label_rows(reports: Path, rows: pd.Series) -> pd.Series:
    known = pd.read_parquet(reports / "predictions" / "baseline.parquet", columns=["row", "label"])
    return rows.map(known.set_index("row")["label"])


def _score(model: str, split: str, labels: pd.Series, predicted: Any) -> Numbers:
    yield build_key("accuracy", model, split), accuracy_score(labels, predicted)
    recall = recall_score(labels, predicted, labels=labels.unique(), average="macro", zero_division=0)
    yield build_key("macro.recall", model, split), recall


def _measure(labels: np.ndarray, p: np.ndarray, emotions: Sequence[str]) -> Numbers:
    """Yield every metric of `evaluation.metrics.compute_metrics`, from probabilities (N, C)."""
    predicted, confidence, truth = p.argmax(axis=1), p.max(axis=1), np.eye(len(emotions))[labels]
    precision, recall, f1, n_faces = precision_recall_fscore_support(
        labels, predicted, labels=range(len(emotions)), zero_division=0
    )
    negatives = multilabel_confusion_matrix(labels, predicted, labels=range(len(emotions)))[:, 0]
    is_there = n_faces > 0
    aurocs = [roc_auc_score(labels == c, p[:, c]) if is_there[c] else np.nan for c in range(len(emotions))]
    scores = {"precision": precision, "recall": np.where(is_there, recall, np.nan), "f1": f1}
    scores |= {"specificity": negatives[:, 0] / negatives.sum(axis=1), "auroc": np.array(aurocs)}
    for metric, of_class in scores.items():
        yield from ((f"{metric}.{name}", value) for name, value in zip(emotions, of_class, strict=True))
        yield f"macro.{metric}", of_class[is_there].mean()
    yield "accuracy", accuracy_score(labels, predicted)
    yield "balanced_accuracy", recall[is_there].mean()
    yield "nll", -np.log(np.maximum((p * truth).sum(axis=1), np.finfo(float).eps)).mean()
    yield "brier", ((p - truth) ** 2).sum(axis=1).mean()
    yield "mean_confidence", confidence.mean()
    bins = np.ceil(confidence * ECE_BINS)
    gaps = pd.Series((predicted == labels) - confidence).groupby(bins).sum()
    yield "ece", gaps.abs().sum() / len(labels)


def compute_mcnemar(a: Any, b: Any) -> float:
    """Return the p-value of McNemar's exact test of who is correct on the same faces, bool (N,) each."""
    a_alone, b_alone = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(a_alone, a_alone + b_alone).pvalue) if a_alone + b_alone else 1.0
