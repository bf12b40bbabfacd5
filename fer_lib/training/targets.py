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
from fer_lib.params import TrainingParams

LABEL_SHARE = 0.5
"""What `blend` leaves to the data set's own label; the rest goes to the votes."""

VOTE_COLUMNS = [f"votes_{name}" for name in VOTES]


def has_votes(index: pd.DataFrame) -> bool:
    """Return whether the index of a packed data set holds FER+'s votes."""
    return set(VOTE_COLUMNS) <= set(index)


def build_targets(data: PackedDataset, training: TrainingParams) -> np.ndarray:
    """Return float32 (N, C): for every face of the store a distribution over the classes.

    `training.targets`: `label`, one-hot; `majority`, one-hot at the most voted emotion; `votes`, their
    shares; `blend`, half label and half votes. A face without a usable vote keeps its label. With
    `training.teacher` a table, the mean of that and the teacher's probabilities, for the faces that it has.

    Raises DataError for votes that the data set does not have, ModelError for a table that is missing or of
    other classes.
    """
    targets = np.eye(len(data.emotions), dtype=np.float32)[data.labels]
    if training.targets != "label":
        targets = _add_votes(targets, count_votes(data), training.targets)
    if training.teacher is not None and is_table(training.teacher):
        rows, probabilities = read_teacher(training.teacher, data)
        targets[rows] = (targets[rows] + probabilities) / 2
    return targets


def _add_votes(labels: np.ndarray, votes: np.ndarray, kind: str) -> np.ndarray:
    if kind == "majority":
        votes = np.where(votes.any(axis=1, keepdims=True), np.eye(votes.shape[1])[votes.argmax(axis=1)], 0)
    total = votes.sum(axis=1, keepdims=True)
    shares = np.where(total > 0, votes / np.maximum(total, 1), labels).astype(np.float32)
    return LABEL_SHARE * labels + (1 - LABEL_SHARE) * shares if kind == "blend" else shares


def count_votes(data: PackedDataset) -> np.ndarray:
    """Return int (N, C), FER+'s votes for the classes of `data`, single ones left out as its protocol does.

    See `fer_lib.data.readers.fer2013.count_majority` for the source. Raises DataError when there are none.
    """
    if not has_votes(data.index):
        raise DataError(
            f"training.targets: expected FER+ votes in the data set {data.meta['dataset']!r}, found none; "
            "use `label`"
        )
    votes = data.index[VOTE_COLUMNS].to_numpy()[:, list(VOTE_OF_LABEL[: len(data.emotions)])]
    return np.where(votes > 1, votes, 0)


def is_table(teacher: Path) -> bool:
    """Return whether a teacher is a table of probabilities, rather than the folder of a checkpoint."""
    return teacher.suffix == ".parquet"


def read_teacher(path: Path, data: PackedDataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows (M,) of a teacher's table, and its probabilities for them, float32 (M, C).

    See `recipes.write_teacher`. Raises ModelError when the table is missing or names other classes.
    """
    columns = [f"probability_{name}" for name in data.emotions]
    try:
        frame = pd.read_parquet(path, columns=["row", *columns])
    except (OSError, ValueError) as error:
        detail = " ".join(str(error).split())[:160]
        raise ModelError(f"training.teacher: {path}: expected a teacher's probabilities: {detail}") from None
    return frame["row"].to_numpy(), frame[columns].to_numpy(np.float32)
