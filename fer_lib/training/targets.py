"""Build what a face is trained towards: its label, annotators' votes, a teacher's table, mixtures of them.

A teacher is a table of probabilities, written once (knowledge distillation, Hinton et al. 2015), or a
trained network, see `teacher`.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from fer_lib.data.packed import PackedDataset
from fer_lib.errors import DataError, ModelError
from fer_lib.labels import VOTE_OF_LABEL, VOTES
from fer_lib.param_sections import TargetShares, TrainingParams

VOTE_COLUMNS = [f"votes_{name}" for name in VOTES]


def has_votes(index: pd.DataFrame) -> bool:
    """Return whether the index of a packed data set holds FER+'s votes."""
    return set(VOTE_COLUMNS) <= set(index)


def build_targets(data: PackedDataset, training: TrainingParams) -> np.ndarray:
    """Return float32 (N, C): the mixture `training.targets` for every face of the store.

    The teachers share theirs evenly. Those that are networks add their part batch by batch, so that here a
    face has the rest. A face without a usable vote keeps its label.

    Raises DataError for votes that the data set does not have, ModelError for a teacher's table that is
    missing or of other classes.
    """
    shares = training.targets
    one_hot = np.eye(len(data.emotions), dtype=np.float32)
    targets = shares.label * one_hot[data.labels]
    if shares.majority or shares.votes:
        votes = _share_votes(data)
        targets += shares.majority * one_hot[votes.argmax(axis=1)] + shares.votes * votes
    for path in filter(is_table, training.teachers):
        rows, probabilities = read_teacher(path, data)
        targets[rows] += shares.teacher / len(training.teachers) * probabilities
    return targets.astype(np.float32)


def share_classes(data: PackedDataset, training: TrainingParams) -> np.ndarray:
    """Return float64 (C,), the share of each class in the targets of the training faces; it sums to 1.

    The part of teachers that are networks is left out. Raises as `build_targets`.
    """
    shares = build_targets(data, training)[data.get_rows("train")].mean(axis=0, dtype=np.float64)
    return np.asarray(shares / shares.sum())


def choose_labels(data: PackedDataset, shares: TargetShares) -> np.ndarray:
    """Return int64 (N,), what accuracy is judged by while training: the labels, where they teach at all.

    A network that learns from votes and not from labels is judged by the most voted emotion.
    """
    labels = _share_votes(data).argmax(axis=1) if shares.are_votes_alone else data.labels
    return labels.astype(np.int64)


def _share_votes(data: PackedDataset) -> np.ndarray:
    votes = count_votes(data)
    total = votes.sum(axis=1, keepdims=True)
    labels = np.eye(len(data.emotions), dtype=np.float32)[data.labels]
    return np.where(total > 0, votes / np.maximum(total, 1), labels).astype(np.float32)


def count_votes(data: PackedDataset) -> np.ndarray:
    """Return int (N, C), FER+'s votes for the classes of `data`, single ones left out as its protocol does.

    See `fer_lib.data.readers.fer2013.count_majority` for the source. Raises DataError when there are none.
    """
    if not has_votes(data.index):
        raise DataError(
            f"training.targets: expected FER+ votes in the data set {data.meta['dataset']!r}, found none; "
            "use `label: 1`"
        )
    votes = data.index[VOTE_COLUMNS].to_numpy()[:, list(VOTE_OF_LABEL[: len(data.emotions)])]
    return np.where(votes > 1, votes, 0)


def is_table(teacher: Path) -> bool:
    """Return whether a teacher is a table of probabilities, rather than the folder of a checkpoint."""
    return teacher.suffix == ".parquet"


def read_teacher(path: Path, data: PackedDataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows (M,) of a teacher's table, and its probabilities for them, float32 (M, C).

    See `networks.write_teacher`. Raises ModelError when the table is missing or names other classes.
    """
    columns = [f"probability_{name}" for name in data.emotions]
    try:
        frame = pd.read_parquet(path, columns=["row", *columns])
    except (OSError, ValueError) as error:
        detail = " ".join(str(error).split())[:160]
        raise ModelError(f"training.teachers: {path}: expected a teacher's probabilities: {detail}") from None
    return frame["row"].to_numpy(), frame[columns].to_numpy(np.float32)
