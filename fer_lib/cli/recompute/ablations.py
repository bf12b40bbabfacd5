"""Recompute the shares of ablation arms and what they gain, from their predictions on test."""

import math

import numpy as np
import pandas as pd

from fer_lib.cli.recompute.predictions import compute_mcnemar
from fer_lib.cli.recompute.written import Numbers, Written
from fer_lib.data.packed import PackedDataset
from fer_lib.evaluation.metrics import group_labels
from fer_lib.evaluation.votes import NO_LABEL, label_by_majority
from fer_lib.labels import EMOTIONS_8, RARE_EMOTIONS
from fer_lib.metrics_file import build_key
from fer_lib.training.targets import has_votes

SAMPLER, VOTE = "cross_entropy_sampler", "soft_vote"
"""The arm of study `loss` with the weighted sampler alone; the one of `ensemble` that joins the others."""


def recompute_ablations(stage: Written) -> Numbers:
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
    losses, ensemble = arms.get("loss", {}), arms.get("ensemble", {})
    for arm, predicted in losses.items():
        yield from _score_rare(arm, labels, predicted)
        loss = arm.removesuffix("_sampler")
        for alone in (loss, SAMPLER) if arm not in (loss, SAMPLER) else ():
            if alone in losses:
                yield from _compare(f"stacked.{arm}_over_{alone}", labels, predicted, losses[alone])
    for arm, predicted in ensemble.items():
        if arm != VOTE:
            yield from _compare(f"vote_over.{arm}", labels, ensemble[VOTE], predicted, shown=predicted)


def _list_judges(faces: PackedDataset | None, study: str, labels: pd.Series) -> dict[str, pd.Series]:
    """Return the labels of a study and of those made from it; `NO_LABEL` for faces that do not count."""
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
    yield f"{model}.mcnemar", compute_mcnemar(wins[0] > wins[1], wins[1] > wins[0])


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
