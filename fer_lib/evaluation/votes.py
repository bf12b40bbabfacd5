"""Measure how far FER+'s annotators agree, with each other, with the labels and with a network."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import entropy

from fer_lib.data.readers.fer2013 import count_majority
from fer_lib.evaluation.bootstrap import Bootstrap
from fer_lib.intervals import Interval
from fer_lib.labels import VOTE_OF_LABEL
from fer_lib.metrics_file import Metrics
from fer_lib.param_sections import TargetShares
from fer_lib.training.targets import VOTE_COLUMNS

NO_LABEL = -1
"""Of a face that the annotators do not agree on."""


def label_by_majority(index: pd.DataFrame, n_classes: int) -> np.ndarray:
    """Return int (N,), the class that most annotators chose, `NO_LABEL` where FER+'s protocol leaves it out.

    index: rows with FER+'s votes. A majority for a class beyond `n_classes` (contempt, of seven) is left out.
    """
    found = [count_majority(votes) for votes in index[VOTE_COLUMNS].to_numpy()]
    labels = np.array([NO_LABEL if majority is None else majority[0] for majority in found])
    return np.where(labels < n_classes, labels, NO_LABEL)


def measure_agreement(index: pd.DataFrame, labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Return one row per number of annotators who gave a face's most frequent answer.

    An answer that is no class of the labels counts as wrong.   index: rows with FER+'s votes.

    Returns
    -------
    DataFrame
        n_agreeing (the index; fewer than four counted as four), n_images, and accuracies: model, of
        `probabilities`, float (N, C); annotators, of the most frequent answer, ties sharing the credit;
        voter, of a random annotator. The last two are left out where the labels, int (N,), are the majority
        of the votes, as FER+'s are.
    """
    votes = index[VOTE_COLUMNS].to_numpy(np.int64)
    voter, annotators = _credit_label(votes, labels)
    table = pd.DataFrame(
        {
            "n_agreeing": np.maximum(votes.max(axis=1), 4),
            "model": probabilities.argmax(axis=1) == labels,
            "annotators": annotators,
            "voter": voter,
        }
    )
    majority = label_by_majority(index, probabilities.shape[1])
    clear = majority != NO_LABEL
    if clear.any() and np.array_equal(majority[clear], labels[clear]):
        table = table.drop(columns=["annotators", "voter"])
    grouped = table.groupby("n_agreeing")
    return grouped.mean().assign(n_images=grouped.size())


def add_votes(
    metrics: Metrics, agreement: pd.DataFrame, votes: np.ndarray, probabilities: np.ndarray
) -> None:
    """Add the table of `measure_agreement`, and the NLL of the votes, to the metrics.

    `votes.soft_nll` is that of the network's probabilities, float (N, C), against the distribution of the
    votes for the classes, counts (N, C); `votes.entropy` the votes' own. Faces without a vote are left out.
    """
    n_images = agreement["n_images"]
    for column in agreement.columns.drop("n_images"):
        for n_agreeing, value, n in zip(agreement.index, agreement[column], n_images, strict=True):
            metrics.add(f"votes.{column}_at_{n_agreeing}", value, n=n)
        metrics.add(f"votes.{column}", np.average(agreement[column], weights=n_images), n=int(n_images.sum()))
    voted = votes.any(axis=1)
    shares = votes[voted] / votes[voted].sum(axis=1, keepdims=True)
    metrics.add("votes.soft_nll", compute_soft_nll(shares, probabilities[voted]), n=len(shares))
    metrics.add("votes.entropy", compute_soft_nll(shares, shares), n=len(shares))


def describe_votes(metrics: Metrics) -> str:
    """Return in words what `add_votes` found, and the accuracy by the annotators' majority label."""
    text = (
        "The network's NLL against the distribution of the annotators' votes is "
        f"{metrics['votes.soft_nll']:.2f} nats; none can go below the entropy of these votes, "
        f"{metrics['votes.entropy']:.2f} nats. As in FER+'s protocol, single votes do not count."
    )
    if "votes.annotators" not in metrics:
        return text
    return (
        f"{text}\n\nJudged by the labels, the network is correct on {metrics['votes.model']:.1%} of the "
        f"faces, the annotators' most frequent answer on {metrics['votes.annotators']:.1%}, and one "
        f"annotator on {metrics['votes.voter']:.1%}. Judged by the annotators' majority, on the "
        f"{metrics.count('annotators.test.accuracy'):,} test faces that have one, the network is correct on "
        f"{metrics['annotators.test.accuracy']:.1%}, and the ensemble with twelve views on "
        f"{metrics['annotators_ensemble_tta.test.accuracy']:.1%}."
    )


def learns_from_votes(training: Mapping[str, Any]) -> bool:
    """Return whether a network learned from votes and not from labels; `training` as its config says."""
    return TargetShares(**training["targets"]).are_votes_alone


TAUS = np.arange(21) / 20
"""The strengths of logit adjustment that are tried."""


def measure_adjustment(
    logits: np.ndarray, judges: Mapping[str, np.ndarray], shares: np.ndarray, taus: np.ndarray
) -> pd.DataFrame:
    """Return what a logit adjustment does: one row per tau and judge.

    Tau times the log of each class's share in training is taken off its logit (Menon et al. 2021, eq. 9).

    logits: float (N, C).   judges: name to labels, int (N,), `NO_LABEL` for faces that it leaves out.
    shares: float (C,), summing to 1.

    Returns
    -------
    DataFrame
        tau, judge, accuracy and macro_recall, over the classes that occur.
    """
    rows = []
    for tau in taus:
        predicted = (logits - tau * np.log(shares)).argmax(axis=1)
        for judge, labels in judges.items():
            known = labels != NO_LABEL
            correct = predicted[known] == labels[known]
            recalls = pd.Series(correct).groupby(labels[known]).mean()
            rows.append((tau, judge, correct.mean(), recalls.mean()))
    return pd.DataFrame(rows, columns=["tau", "judge", "accuracy", "macro_recall"])


def choose_tau(accuracies: pd.Series, cost: float) -> float:
    """Return the largest tau, from 0 up, whose accuracy is at most `cost` below that of the first.

    accuracies: by tau, in ascending order.
    """
    kept = (accuracies >= accuracies.iloc[0] - cost).cummin()
    return float(accuracies.index[kept.to_numpy()][-1])


def compute_soft_nll(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean cross-entropy in nats, (N, C) to (N, C); of `targets` to themselves, their entropy."""
    return float(-(targets * np.log(np.maximum(probabilities, 1e-12))).sum(axis=1).mean())


def compute_vote_entropy(votes: np.ndarray) -> np.ndarray:
    """Return float64 (N,), the Shannon entropy in bits of each face's votes, (N, 10) as `labels.VOTES`.

    0 where all annotators agree, 1 for two equal halves, NaN where nobody voted.
    """
    with np.errstate(invalid="ignore"):
        return entropy(np.asarray(votes, dtype=np.float64), base=2, axis=1)


def estimate_human_ceiling(
    votes: np.ndarray, labels: np.ndarray, n_resamples: int, seed: int
) -> tuple[dict[str, Interval], int]:
    """Return how far annotators agree with each other and with the labels, and over how many images.

    Every share is an average over the images with at least two votes; where several answers lead equally,
    each gets an equal part of the credit. A vote for contempt, unknown or not-a-face cannot agree with one of
    the seven FER2013 labels.   votes: int (N, 10), in the order of `labels.VOTES`.   labels: int (N,).

    Returns
    -------
    dict
        `voter_vs_others`: a random annotator names what the others of that image name most. The annotator's
        own vote is taken out first; counting it would make people look more consistent than they are.
        `voter_vs_label`: a random annotator names the label; what one person would score on this data set.
        `majority_vs_label`: the annotators' most frequent answer is the label.
    int
        The number of images with at least two votes.
    """
    votes, labels = np.asarray(votes, dtype=np.int64), np.asarray(labels)
    counted = votes.sum(axis=1) >= 2
    votes, labels = votes[counted], labels[counted]
    shares, among_others = votes / votes.sum(axis=1, keepdims=True), np.zeros(len(votes))
    for answer in range(votes.shape[1]):
        others = votes.copy()
        others[:, answer] -= 1
        among_others += shares[:, answer] * _share_lead(others)[:, answer]
    voter, majority = _credit_label(votes, labels)
    credits = {"voter_vs_others": among_others, "voter_vs_label": voter, "majority_vs_label": majority}
    bootstrap = Bootstrap(len(votes), n_resamples, seed)
    return {name: bootstrap.mean(credit) for name, credit in credits.items()}, len(votes)


def _credit_label(votes: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (N,) shares: of the voters who name the label, and of the lead that is the label's."""
    of_label = np.arange(len(votes)), np.asarray(VOTE_OF_LABEL)[labels]
    shares = votes / np.maximum(votes.sum(axis=1, keepdims=True), 1)
    return shares[of_label], _share_lead(votes)[of_label]


def _share_lead(votes: np.ndarray) -> np.ndarray:
    """Return (N, C) credits: 1 for the answer with the most votes, split evenly when several lead."""
    leads = votes == votes.max(axis=1, keepdims=True)
    return leads / leads.sum(axis=1, keepdims=True)
