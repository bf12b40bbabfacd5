"""Score committed predictions again, for `fer verify`: of networks, of their variants, and of ablation arms."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, recall_score

from fer_lib.data.packed import PackedDataset, load_packed
from fer_lib.errors import FerError
from fer_lib.evaluation.bootstrap import Bootstrap
from fer_lib.evaluation.metrics import (
    compute_metrics,
    fit_temperature,
    group_labels,
    group_probabilities,
    score_predictions,
)
from fer_lib.evaluation.votes import NO_LABEL, label_by_majority
from fer_lib.labels import EMOTIONS_8, GROUPS, RARE_EMOTIONS
from fer_lib.metrics_file import Metrics, build_key
from fer_lib.params import Params
from fer_lib.paths import OutputDirs
from fer_lib.training.targets import has_votes
from fer_lib.training.voting import fit_weights, vote

Numbers = Iterator[tuple[str, Any]]
"""Keys of a stage's table or facts, and what they are to be; NaN where a number is not defined."""


@dataclass(frozen=True)
class Written:
    """What a stage wrote, and what it can be recomputed from.

    Parameters
    ----------
    root
        Folder of the project.
    dirs
        Folders of the data set.
    metrics
        What was written.
    packed
        Folder of the packed faces, or None where those of the stage are not here.
    params
        The stage's parameters, or None where they have changed since.
    """

    root: Path
    dirs: OutputDirs
    metrics: Metrics
    packed: Path | None
    params: Params | None

    @cached_property
    def faces(self) -> PackedDataset | None:
        """The packed faces."""
        return load_packed(self.packed.name, self.packed) if self.packed else None

    def read(self, file: str) -> pd.DataFrame:
        """Return a table of predictions by its path in the reports. Raises FerError for one of other data."""
        frame, expected = pd.read_parquet(self.dirs.reports / file), self.metrics.provenance["data"]
        if frame.attrs.get("data_hash") not in (None, expected):
            raise FerError(f"{file}: expected data {expected}, found {frame.attrs['data_hash']}")
        return frame

    def read_all(self, folder: str) -> dict[str, pd.DataFrame]:
        """Return the tables of a folder by name."""
        paths = sorted((self.dirs.reports / folder).glob("*.parquet"))
        return {path.stem: self.read(f"{folder}/{path.name}") for path in paths}


def rescore_table(kind: str, path: Path, frame: pd.DataFrame) -> Numbers:
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


def rescore_evaluation(stage: Written) -> Numbers:
    """Yield what the networks' predictions score on test, alone and together, and which is selected.

    With the packed data also without duplicates, and with intervals, for the selected network.
    """
    networks = list(stage.metrics.select(metric="weight")["model"].str.removeprefix("ensemble."))
    selected = max(networks, key=lambda network: stage.metrics[f"{network}.val.accuracy"])
    yield "selected", selected
    tables = [pd.read_parquet(stage.dirs.reports / "predictions" / f"{name}.parquet") for name in networks]
    names = [str(column) for column in tables[0] if str(column).startswith("logit_")]
    emotions = [name.removeprefix("logit_") for name in names]
    chosen = networks.index(selected)
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
            for metric, value in compute_metrics(labels, p, emotions).items():
                yield build_key(metric, model, split), value
            if split == "test":
                grouped = group_probabilities(in_groups.get(model, p), emotions)
                for metric, value in compute_metrics(group_labels(labels, emotions), grouped, GROUPS).items():
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


def rescore_compression(stage: Written) -> Numbers:
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
                yield f"{name}.{title}.p_value", _test_mcnemar(own, correct[other])
        file = stage.dirs.compressed / network / f"{variant}.onnx"
        if file.is_file():
            yield f"{name}.bytes", file.stat().st_size
    for title in ("int8", "pruned", "smallest"):
        if name := stage.metrics.get(f"{title}.variant"):
            yield f"{title}.test.accuracy", correct[name].mean()


def rescore_ablations(stage: Written) -> Numbers:
    """Yield the shares of each arm, what they gain over its reference, and how errors propagate.

    With the packed data also on test faces without a copy in training, and by the annotators' majority.
    """
    tables = stage.read_all("ablations")
    labels = tables["reference"]["label"]
    arms = {study: _split_arms(table, "emotion") for study, table in tables.items()}
    reference = arms.pop("reference")["reference"]
    yield "n_images", len(labels)
    yield "n_seeds", reference.shape[1]
    yield from _name("reference", _compute_shares(labels, reference))
    yield from _score_rare("reference", labels, reference)
    yield from _propagate("flat", tables["reference"], "reference")
    for arm in arms.get("head", {}):
        yield from _propagate(arm, tables["head"], arm)
    for study, of_study in arms.items():
        own = of_study.pop("reference", reference)
        if study == "paper" and of_study:
            yield from _name("paper.reference", _compute_shares(labels, own))
        for name, judge in _list_judges(stage.faces, study, labels).items():
            for arm, predicted in of_study.items():
                yield from _compare(f"{name}.{arm}", judge, predicted, own)
        for arm, predicted in of_study.items():
            if study == "loss":
                yield from _score_rare(arm, labels, predicted)
            for alone in (arm.removesuffix("_sampler"), "cross_entropy_sampler"):
                if (
                    study == "loss"
                    and arm not in (alone, "cross_entropy_sampler")
                    and arm.endswith("_sampler")
                ):
                    if alone in of_study:
                        yield from _compare(f"stacked.{arm}_over_{alone}", labels, predicted, of_study[alone])
            if study == "ensemble" and arm != "soft_vote":
                together = of_study["soft_vote"]
                yield from _compare(f"vote_over.{arm}", labels, together, predicted, shown=predicted)


def _list_judges(faces: PackedDataset | None, study: str, labels: pd.Series) -> dict[str, pd.Series]:
    """Return the labels that decide in a study, and in those made from it; `NO_LABEL` for who takes no part."""
    judges = {study: labels}
    if faces:
        rows = faces.get_rows("test")
        if study == "duplicates":
            unseen = np.isin(rows, faces.get_rows("test", drop_duplicates_of="train"))
            judges["duplicates_unseen"] = labels.where(unseen, NO_LABEL)
        if study == "targets" and has_votes(faces.index):
            majority = label_by_majority(faces.take(rows).index, len(faces.emotions))
            judges["targets_annotators"] = pd.Series(majority, labels.index)
    return judges


def _split_arms(table: pd.DataFrame, kind: str) -> dict[str, pd.DataFrame]:
    """Return by arm the predictions of a kind, `emotion` or `group`: a row each face, a column each seed."""
    columns = table.filter(regex=rf"\.{kind}$")
    return {str(arm): part.T for arm, part in columns.T.groupby(lambda column: column.rsplit(".", 2)[0])}


def _compute_shares(labels: pd.Series, predicted: pd.DataFrame) -> dict[str, float]:
    correct = predicted.eq(labels, axis=0).mean(axis=1)
    recalls = correct.groupby(labels).mean()
    rare = {f"recall.{name}": recalls.get(EMOTIONS_8.index(name), math.nan) for name in RARE_EMOTIONS}
    return {"accuracy": correct.mean(), "macro_recall": recalls.mean(), **rare}


def _compare(
    model: str,
    judge: pd.Series,
    predicted: pd.DataFrame,
    other: pd.DataFrame,
    shown: pd.DataFrame | None = None,
) -> Numbers:
    judge = judge[judge != NO_LABEL]
    a, b = predicted.loc[judge.index], other.loc[judge.index]
    yield from _name(model, _compute_shares(judge, a if shown is None else shown.loc[judge.index]))
    of_a, of_b = _compute_shares(judge, a), _compute_shares(judge, b)
    for share in of_a:
        metric, _, emotion = share.partition(".")
        yield build_key(f"{metric}.gain", model, of=emotion), of_a[share] - of_b[share]
        effect = 2 * (math.asin(math.sqrt(of_a[share])) - math.asin(math.sqrt(of_b[share])))
        yield build_key(f"{metric}.effect", model, of=emotion), effect
    wins = [part.eq(judge, axis=0).sum(axis=1) for part in (a, b)]
    yield f"{model}.mcnemar", _test_mcnemar(wins[0] > wins[1], wins[1] > wins[0])


def _score_rare(arm: str, labels: pd.Series, predicted: pd.DataFrame) -> Numbers:
    for emotion in RARE_EMOTIONS:
        is_label, is_named = labels == EMOTIONS_8.index(emotion), predicted == EMOTIONS_8.index(emotion)
        n_named = is_named.to_numpy().sum()
        if is_label.any():
            yield f"rare.{arm}.rate.{emotion}", n_named / (is_label.sum() * predicted.shape[1])
            yield f"rare.{arm}.precision.{emotion}", is_named[is_label].to_numpy().sum() / max(1, n_named)


def _propagate(head: str, table: pd.DataFrame, arm: str) -> Numbers:
    """Yield how errors of the three groups reach the emotions."""
    correct = _split_arms(table, "emotion")[arm].eq(table["label"], axis=0).to_numpy()
    groups = pd.Series(group_labels(table["label"].to_numpy(), EMOTIONS_8))
    in_group = _split_arms(table, "group")[arm].eq(groups, axis=0).to_numpy()
    yield f"propagation.{head}.coarse_accuracy", in_group.mean()
    yield f"propagation.{head}.fine_given_coarse", correct[in_group].mean()
    yield f"propagation.{head}.inherited", (~in_group[~correct]).mean()


def _name(model: str, shares: dict[str, float]) -> Numbers:
    yield from ((f"{model}.{share}", value) for share, value in shares.items())


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


def _test_mcnemar(a: Any, b: Any) -> float:
    a_alone, b_alone = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(a_alone, a_alone + b_alone).pvalue) if a_alone + b_alone else 1.0
