"""Compare every arm of the ablation studies with its reference, on the same test faces and seeds."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from fer_lib.data.packed import PackedDataset
from fer_lib.evaluation.ablations import (
    ENSEMBLE,
    REFERENCE,
    VOTE,
    find_arms,
    get_predictions_path,
    read_predictions,
)
from fer_lib.evaluation.bootstrap import Bootstrap, average, average_defined
from fer_lib.evaluation.metrics import compare_mcnemar, group_labels
from fer_lib.evaluation.votes import NO_LABEL, label_by_majority
from fer_lib.intervals import Interval
from fer_lib.labels import RARE_EMOTIONS
from fer_lib.metrics_file import Metrics
from fer_lib.params import Params, apply_recipe
from fer_lib.paths import OutputDirs
from fer_lib.study_sections import AblationsParams
from fer_lib.training.recipes import describe_budget
from fer_lib.training.targets import has_votes

SHARES = ("accuracy", "macro_recall", *(f"recall.{name}" for name in RARE_EMOTIONS))
"""What arms are compared by; the rare emotions have columns of their own."""

SAMPLER, BOTH = "cross_entropy_sampler", "_sampler"
"""The arm of study `loss` with the weighted sampler alone; how the arms of that and another loss end."""

MADE_FROM = {
    "vote_over": ENSEMBLE,
    "stacked": "loss",
    "duplicates_unseen": "duplicates",
    "targets_annotators": "targets",
}
"""Further studies, and the one whose predictions each compares."""


class Difference(NamedTuple):
    """A - B in a share (0 to 1) with its 95% interval, and Cohen's h, the size of the effect.

    effect: h is 2 asin(sqrt a) - 2 asin(sqrt b) (Cohen 1988, ch. 6): 0.2 counts as small, 0.5 as medium.
    """

    gain: Interval
    p_value: float
    effect: float


class _Pair(NamedTuple):
    """An arm's predictions (S, N), those that it is compared with, and the labels (N,), some `NO_LABEL`."""

    study: str
    arm: str
    predictions: np.ndarray
    against: np.ndarray
    labels: np.ndarray


def compare_studies(dirs: OutputDirs, settings: AblationsParams, data: PackedDataset) -> pd.DataFrame:
    """Return one row per study, arm and share, for the studies that have run.

    A study that has a reference of its own is compared with that. Further studies are `MADE_FROM` others:
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
    persons, rows = data.persons[data.get_rows("test")], []
    for pair in _pair_arms(dirs, settings, data):
        faces = pair.labels != NO_LABEL
        labels, a, b = pair.labels[faces], pair.predictions[:, faces], pair.against[:, faces]
        values = compute_shares(labels, b if pair.study == "vote_over" else a, data.emotions)
        bootstrap = Bootstrap(len(labels), settings.n_resamples, 0, persons[faces])
        differences = compare_arms(labels, a, b, data.emotions, bootstrap)
        mcnemar = compute_p_value(labels, a, b)
        for share in SHARES:
            if share in values:
                gain, p_value, effect = differences[share]
                rows.append((pair.study, pair.arm, share, values[share], *gain, p_value, effect, mcnemar))
    columns = ["study", "arm", "share", "value", "gain", "low", "high", "p_value", "effect", "mcnemar"]
    return pd.DataFrame(rows, columns=columns)


def _pair_arms(dirs: OutputDirs, settings: AblationsParams, data: PackedDataset) -> Iterator[_Pair]:
    rows = data.get_rows("test")
    labels = data.labels[rows]
    reference = _read_arms(dirs, REFERENCE, data)[REFERENCE]
    for study in settings.list_studies():
        if study == REFERENCE or not get_predictions_path(dirs, study).is_file():
            continue
        arms = _read_arms(dirs, study, data)
        own = arms.pop(REFERENCE, reference)
        judged = {study: labels}
        if study == "duplicates":
            unseen = np.isin(rows, data.get_rows("test", drop_duplicates_of="train"))
            judged["duplicates_unseen"] = np.where(unseen, labels, NO_LABEL)
        if study == "targets" and has_votes(data.index):
            judged["targets_annotators"] = label_by_majority(data.take(rows).index, len(data.emotions))
        for name, by in judged.items():
            for arm, predicted in arms.items():
                yield _Pair(name, arm, predicted, own, by)
        if study == "loss":
            for arm in [arm for arm in arms if arm.endswith(BOTH) and arm != SAMPLER]:
                for alone in (arm.removesuffix(BOTH), SAMPLER):
                    if alone in arms:
                        yield _Pair("stacked", f"{arm}_over_{alone}", arms[arm], arms[alone], labels)
        if study == ENSEMBLE and arms:
            vote = arms.pop(VOTE)
            for arm, predicted in arms.items():
                yield _Pair("vote_over", arm, vote, predicted, labels)


def _read_arms(dirs: OutputDirs, study: str, data: PackedDataset) -> dict[str, np.ndarray]:
    return {arm: emotions for arm, emotions, _ in read_predictions(dirs, study, data)}


def compute_shares(labels: np.ndarray, predictions: np.ndarray, emotions: Sequence[str]) -> dict[str, float]:
    """Return accuracy, macro_recall and recall.<emotion>, each the mean over seeds.

    labels: int (N,).   predictions: int (S, N), one row per seed.
    """
    scores = _score(predictions == labels, labels, np.ones((1, len(labels))))[0].mean(axis=0)
    return dict(zip(_name_shares(labels, emotions), map(float, scores), strict=True))


def compare_arms(
    labels: np.ndarray,
    predictions_a: np.ndarray,
    predictions_b: np.ndarray,
    emotions: Sequence[str],
    bootstrap: Bootstrap,
) -> dict[str, Difference]:
    """Return A - B of the shares of `compute_shares`, from predictions (S, N) with the same seeds and faces.

    The standard error adds up two variances: that of the faces, from a bootstrap over images or over clusters
    of them, and that of the trainings, from the seeds' differences. Interval and p-value are Student's, with
    the degrees of freedom of Welch and Satterthwaite (Satterthwaite 1946): where trainings vary most, three
    seeds count as three. Two are too few to know how much they vary: the interval then covers 86% instead of
    95%. One says nothing of it; the interval is about faces alone.

    Raises ValueError when the two do not have the same seeds and faces.
    """
    correct_a, correct_b = predictions_a == labels, predictions_b == labels
    if correct_a.shape != correct_b.shape:
        raise ValueError(f"expected the same seeds and faces, found {correct_a.shape} and {correct_b.shape}")
    n_seeds = len(correct_a)
    drawn_a, drawn_b = (
        bootstrap.score(lambda weights, correct=correct: _score(correct, labels, weights))  # type: ignore[misc]
        for correct in (correct_a, correct_b)
    )
    differences = {}
    for i, name in enumerate(_name_shares(labels, emotions)):
        a, b = drawn_a[0, :, i], drawn_b[0, :, i]
        of_faces = np.nanvar((drawn_a[1:, :, i] - drawn_b[1:, :, i]).mean(axis=1), ddof=1)
        of_seeds = np.var(a - b, ddof=1) / n_seeds if n_seeds > 1 else 0.0
        value, error = float(a.mean() - b.mean()), float(np.sqrt(of_faces + of_seeds))
        freedom = (of_faces + of_seeds) ** 2 / of_seeds**2 * (n_seeds - 1) if of_seeds else np.inf
        reach = float(error * stats.t.ppf(0.975, freedom))
        p_value = 2 * stats.t.sf(abs(value) / error, freedom) if error else float(value == 0)
        effect = 2 * (np.arcsin(np.sqrt(a.mean())) - np.arcsin(np.sqrt(b.mean())))
        gain = Interval(value, max(-1.0, value - reach), min(1.0, value + reach))
        differences[name] = Difference(gain, float(p_value), float(effect))
    return differences


def compute_p_value(labels: np.ndarray, predictions_a: np.ndarray, predictions_b: np.ndarray) -> float:
    """Return the p-value of McNemar's exact test over several seeds.

    A face counts for the arm that is correct on it with more seeds; with one seed it is McNemar's own test.
    It says whether these trained networks differ; `Difference.p_value`, whether trainings do.
    """
    wins = (predictions_a == labels).sum(axis=0) - (predictions_b == labels).sum(axis=0)
    return compare_mcnemar(wins > 0, wins < 0)


def _name_shares(labels: np.ndarray, emotions: Sequence[str]) -> list[str]:
    return ["accuracy", "macro_recall", *(f"recall.{emotions[index]}" for index in np.unique(labels))]


def _score(correct: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the shares (r, S, K) of correct (S, N) under weights (r, N); NaN for an absent class."""
    accuracies = np.stack([average(seed, weights) for seed in correct])
    recalls = []
    for index in np.unique(labels):
        of_class = labels == index
        weights_of_class = weights[:, of_class]
        recalls.append(np.stack([average(seed[of_class], weights_of_class) for seed in correct]))
    macro = average_defined(np.stack(recalls, axis=-1))
    return np.stack([accuracies, macro, *recalls]).T


def describe_budgets(params: Params, data: PackedDataset) -> dict[str, str]:
    """Return for each study that has arms, and for those `MADE_FROM` it, the budget of its reference.

    It reads `5 epochs of 28,709 faces at 48 px, seeds 0, 1, 2`. Arms with another have one under their own
    name, `<study>.<arm>`, and so has the soft vote, which has several.
    """
    budgets, seeds = {}, ", ".join(map(str, params.ablations.seeds))
    for study, (reference, *_) in params.ablations.list_studies().items():
        arms = find_arms(params, study)
        training = arms.get(REFERENCE, apply_recipe(params, reference)).training
        if arms:
            budgets[study] = f"{describe_budget(training.model_dump(), data)}, seeds {seeds}"
        for arm, own in arms.items():
            budget = f"{describe_budget(own.training.model_dump(), data)}, seeds {seeds}"
            if budget != budgets[study]:
                budgets[f"{study}.{arm}"] = budget
    for made, study in MADE_FROM.items():
        of_study = {key: budget for key, budget in budgets.items() if key.partition(".")[0] == study}
        budgets |= {f"{made}{key.removeprefix(study)}": budget for key, budget in of_study.items()}
    if ENSEMBLE in budgets:
        n_members = len(params.ablations.members)
        budgets[f"{ENSEMBLE}.{VOTE}"] = f"{n_members} networks, each {budgets[ENSEMBLE]}"
    return budgets


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
        if share == "accuracy":
            metrics.add("mcnemar", row["mcnemar"], model=model)


def score_reference(labels: np.ndarray, predictions: np.ndarray, emotions: Sequence[str]) -> pd.DataFrame:
    """Return the shares of one arm, predictions int (S, N): `mean` over seeds, then one column per seed."""
    scored = {"mean": predictions} | dict(enumerate(predictions[:, None]))
    shares = pd.DataFrame(
        {name: compute_shares(labels, predicted, emotions) for name, predicted in scored.items()}
    )
    shares = shares.loc[[share for share in SHARES if share in shares.index]]
    return shares.rename_axis("reference")


def tabulate_rare(dirs: OutputDirs, data: PackedDataset) -> pd.DataFrame:
    """Return `measure_rare`, a row each, of the reference and of the arms of study `loss` once it has run."""
    arms = _read_arms(dirs, REFERENCE, data)
    if get_predictions_path(dirs, "loss").is_file():
        arms |= _read_arms(dirs, "loss", data)
    labels = data.labels[data.get_rows("test")]
    measured = {arm: measure_rare(labels, predicted, data.emotions) for arm, predicted in arms.items()}
    return pd.DataFrame.from_dict(measured, orient="index").rename_axis("arm")


def measure_rare(labels: np.ndarray, predictions: np.ndarray, emotions: Sequence[str]) -> dict[str, float]:
    """Return for each rare emotion how often it is predicted, per face of it, and its precision.

    Both are over seeds and faces, int (S, N), together. A rate of 1 is as often as it occurs; a network that
    over-corrects predicts it more often and is correct less. An emotion that does not occur is left out.
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


def measure_propagation(
    labels: np.ndarray, predictions: np.ndarray, groups: np.ndarray, emotions: Sequence[str]
) -> dict[str, float]:
    """Return how errors of the coarse decision (positive / negative / neutral) reach the fine one.

    labels: int (N,).   predictions, groups: int (S, N), emotion and group, one row per seed.
    coarse_accuracy; fine_given_coarse, the accuracy where the group is correct; inherited, the share of all
    wrong emotions whose group was wrong already; all over seeds and faces together.
    """
    group_correct, correct = groups == group_labels(labels, emotions), predictions == labels
    return {
        "coarse_accuracy": float(group_correct.mean()),
        "fine_given_coarse": float(correct[group_correct].mean()),
        "inherited": float((~group_correct & ~correct).sum() / max(1, (~correct).sum())),
    }
