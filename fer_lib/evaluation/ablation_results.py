"""Compare every arm of the ablation studies with the reference."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fer_lib.data.packed import PackedDataset
from fer_lib.evaluation.ablations import ENSEMBLE, REFERENCE, VOTE, get_predictions_path, read_predictions
from fer_lib.evaluation.bootstrap import Bootstrap
from fer_lib.evaluation.comparisons import compare_arms, compute_p_value, compute_shares
from fer_lib.evaluation.votes import NO_LABEL, label_by_majority
from fer_lib.labels import RARE_EMOTIONS, get_group_indices
from fer_lib.metrics_file import Interval, Metrics
from fer_lib.params import AblationsParams
from fer_lib.paths import OutputDirs
from fer_lib.training.targets import has_votes

SHARES = ("accuracy", "macro_recall", *(f"recall.{name}" for name in RARE_EMOTIONS))
"""What arms are compared by; the rare emotions have columns of their own."""

DUPLICATES, TARGETS, LOSS = "duplicates", "targets", "loss"
DUPLICATES_UNSEEN, TARGETS_ANNOTATORS = "duplicates_unseen", "targets_annotators"
STACKED, VOTE_OVER = "stacked", "vote_over"
"""Studies, and those that `compare_studies` makes of them."""

SAMPLER, BOTH = "cross_entropy_sampler", "_sampler"
"""The arm of study `loss` with the weighted sampler alone; how the arms of that and another loss end."""


@dataclass(frozen=True)
class _Pair:
    """An arm's predictions (S, N), those that it is compared with, and the labels (N,), some `NO_LABEL`."""

    study: str
    arm: str
    predictions: np.ndarray
    against: np.ndarray
    labels: np.ndarray


def compare_studies(dirs: OutputDirs, settings: AblationsParams, data: PackedDataset) -> pd.DataFrame:
    """Return one row per study, arm and share, for the studies that have run.

    A study that has a reference of its own is compared with that. Further studies are made from others:
    `vote_over`, the soft vote minus each other arm of `ensemble`, with that arm's value; `duplicates_unseen`,
    the arms of `duplicates` on the test faces without a copy in training; `targets_annotators`, those of
    `targets` judged by the majority of FER+'s votes; `stacked`, each loss with the weighted sampler minus the
    same loss without it, and minus the sampler alone.

    Returns
    -------
    DataFrame
        study, arm, share, value (mean over seeds), gain (arm minus reference) with its interval low to high
        and its p_value, effect (Cohen's h), and mcnemar, the p-value of McNemar's test of the accuracy, for
        which each face is another person's.

    Raises
    ------
    DataError
        When the reference has not run, or a study was run on other data.
    """
    rows = data.get_rows("test")
    labels, persons = data.labels[rows], data.persons[rows]
    reference = _read_arms(dirs, REFERENCE, data)[REFERENCE]
    pairs: list[_Pair] = []
    for study in settings.studies:
        if study == REFERENCE or not get_predictions_path(dirs, study).is_file():
            continue
        arms = _read_arms(dirs, study, data)
        own = arms.pop(REFERENCE, reference)
        pairs += [_Pair(study, arm, predicted, own, labels) for arm, predicted in arms.items()]
        if study == DUPLICATES:
            unseen = np.isin(rows, data.get_rows("test", drop_duplicates_of="train"))
            judged = np.where(unseen, labels, NO_LABEL)
            pairs += [
                _Pair(DUPLICATES_UNSEEN, arm, predicted, own, judged) for arm, predicted in arms.items()
            ]
        if study == TARGETS and has_votes(data.index):
            majority = label_by_majority(data.take(rows).index, len(data.emotions))
            pairs += [
                _Pair(TARGETS_ANNOTATORS, arm, predicted, own, majority) for arm, predicted in arms.items()
            ]
        if study == LOSS:
            pairs += _stack(arms, labels)
        if study == ENSEMBLE:
            vote = arms.pop(VOTE)
            pairs += [_Pair(VOTE_OVER, arm, vote, predicted, labels) for arm, predicted in arms.items()]
    found = []
    for pair in pairs:
        faces = pair.labels != NO_LABEL
        judged, a, b = pair.labels[faces], pair.predictions[:, faces], pair.against[:, faces]
        values = compute_shares(judged, b if pair.study == VOTE_OVER else a, data.emotions)
        bootstrap = Bootstrap(len(judged), settings.n_resamples, 0, persons[faces])
        differences = compare_arms(judged, a, b, data.emotions, bootstrap)
        mcnemar = compute_p_value(judged, a, b)
        for share in [share for share in SHARES if share in values]:
            difference = differences[share]
            numbers = (*difference.gain, difference.p_value, difference.effect, mcnemar)
            found.append((pair.study, pair.arm, share, values[share], *numbers))
    columns = ["study", "arm", "share", "value", "gain", "low", "high", "p_value", "effect", "mcnemar"]
    return pd.DataFrame(found, columns=columns)


def _stack(arms: dict[str, np.ndarray], labels: np.ndarray) -> list[_Pair]:
    """Return each loss with the weighted sampler against either of the two alone."""
    stacked = [arm for arm in arms if arm.endswith(BOTH) and arm != SAMPLER]
    return [
        _Pair(STACKED, f"{arm}_over_{alone}", arms[arm], arms[alone], labels)
        for arm in stacked
        for alone in (arm.removesuffix(BOTH), SAMPLER)
        if alone in arms
    ]


def tabulate_rare(dirs: OutputDirs, data: PackedDataset) -> pd.DataFrame:
    """Return `measure_rare`, a row each, of the reference and of the arms of study `loss` once it has run."""
    arms = _read_arms(dirs, REFERENCE, data)
    if get_predictions_path(dirs, LOSS).is_file():
        arms |= _read_arms(dirs, LOSS, data)
    labels = data.labels[data.get_rows("test")]
    measured = {arm: measure_rare(labels, predicted, data.emotions) for arm, predicted in arms.items()}
    return pd.DataFrame.from_dict(measured, orient="index").rename_axis("arm")


def measure_rare(labels: np.ndarray, predictions: np.ndarray, emotions: Sequence[str]) -> dict[str, float]:
    """Return for each rare emotion how often it is predicted, per face of it, and its precision.

    1 prediction per face is as often as it occurs; a network that over-corrects predicts it more often and is
    correct less. An emotion that does not occur is left out.

    Parameters
    ----------
    labels
        int (N,).
    predictions
        int (S, N); both measures are over seeds and faces together.
    """
    measured = {}
    for emotion in RARE_EMOTIONS:
        index = emotions.index(emotion)
        n_faces, predicted = np.sum(labels == index) * len(predictions), predictions == index
        if n_faces:
            correct = (predicted & (labels == index)).sum()
            measured[f"rate.{emotion}"] = float(predicted.sum() / n_faces)
            measured[f"precision.{emotion}"] = float(correct / predicted.sum()) if predicted.any() else 0.0
    return measured


def _read_arms(dirs: OutputDirs, study: str, data: PackedDataset) -> dict[str, np.ndarray]:
    return {arm: emotions for arm, emotions, _ in read_predictions(dirs, study, data)}


def add_studies(metrics: Metrics, table: pd.DataFrame) -> None:
    """Add the table of `compare_studies` to the metrics, an arm as the model `<study>.<arm>`."""
    for row in table.to_dict("records"):
        model = f"{row['study']}.{row['arm']}"
        share, _, emotion = row["share"].partition(".")
        gain = Interval(row["gain"], row["low"], row["high"])
        metrics.add(share, row["value"], model=model, of=emotion)
        metrics.add(f"{share}.gain", gain, model=model, of=emotion)
        metrics.add(f"{share}.p_value", row["p_value"], model=model, of=emotion)
        metrics.add(f"{share}.effect", row["effect"], model=model, of=emotion)
        metrics.add("mcnemar", row["mcnemar"], model=model)


def score_reference(labels: np.ndarray, predictions: np.ndarray, emotions: Sequence[str]) -> pd.DataFrame:
    """Return the shares of one arm: `mean` over seeds, then one column per seed.

    labels: int (N,).   predictions: int (S, N).
    """
    scored = {"mean": predictions} | dict(enumerate(predictions[:, None]))
    shares = pd.DataFrame(
        {name: compute_shares(labels, predicted, emotions) for name, predicted in scored.items()}
    )
    shares = shares.loc[[share for share in SHARES if share in shares.index]]
    return shares.rename_axis("reference")


def measure_propagation(
    labels: np.ndarray, predictions: np.ndarray, groups: np.ndarray, emotions: Sequence[str]
) -> dict[str, float]:
    """Return how errors of the coarse decision (positive / negative / neutral) reach the fine one.

    labels: int (N,).   predictions, groups: int (S, N), emotion and group, one row per seed.
    coarse_accuracy; fine_given_coarse, the accuracy where the group is correct; inherited, the share of all
    wrong emotions whose group was wrong already; all over seeds and faces together.
    """
    group_correct = groups == np.asarray(get_group_indices(list(emotions)))[labels]
    correct = predictions == labels
    return {
        "coarse_accuracy": float(group_correct.mean()),
        "fine_given_coarse": float(correct[group_correct].mean()),
        "inherited": float((~group_correct & ~correct).sum() / max(1, (~correct).sum())),
    }
