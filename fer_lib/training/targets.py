"""Build what a face is trained towards: its label, annotators' votes, a teacher's probabilities, mixtures.

A teacher is a table of probabilities, written once (knowledge distillation, Hinton et al. 2015), or a
trained network that predicts every augmented batch (online knowledge distillation). Unlike the table, the
network sees the very image that the student is shown, so that a long training finds no targets to learn by
heart (Beyer et al. 2022, "A good teacher is patient and consistent").
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F  # noqa: N812

from fer_lib.data.packed import PackedDataset
from fer_lib.errors import DataError, ModelError
from fer_lib.labels import VOTE_OF_LABEL, VOTES
from fer_lib.models.build import load_checkpoint
from fer_lib.models.checkpoints import WEIGHTS_NAME
from fer_lib.models.preprocessing import Preprocessing
from fer_lib.params import TrainingParams
from fer_lib.provenance import hash_file

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


def mix_batch(
    images: torch.Tensor, targets: torch.Tensor, alpha: float, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a mixup of a batch with itself in another order (Zhang et al. 2018), one share for the batch.

    `images` are float (N, 3, S, S), `targets` float (N, C). timm's own mixup takes class indices alone.
    """
    share, order = rng.beta(alpha, alpha), torch.from_numpy(rng.permutation(len(images)))
    order = order.to(images.device)
    return share * images + (1 - share) * images[order], share * targets + (1 - share) * targets[order]


class Teacher:
    """A trained network for online distillation: the student's input (N, 3, S, S) to probabilities (N, C).

    `emotions` and `preprocessing` are the student's; images of another size than the teacher's are resized.
    Raises ModelError when the checkpoint in `folder` is missing or of other classes.
    """

    def __init__(
        self, folder: Path, emotions: Sequence[str], preprocessing: Preprocessing, device: torch.device
    ):
        checkpoint = load_checkpoint(folder, device)
        if checkpoint.emotions != tuple(emotions):
            raise ModelError(
                f"training.teacher: {folder}: expected a network of {', '.join(emotions)}, "
                f"found {', '.join(checkpoint.emotions)}"
            )
        self.weights_sha256 = hash_file(folder / WEIGHTS_NAME)
        own = checkpoint.preprocessing
        self._model, self._size = checkpoint.model, own.image_size
        # From the student's normalisation to the teacher's in one step.
        values = torch.tensor([own.mean, own.std, preprocessing.mean, preprocessing.std], device=device)
        own_mean, own_std, mean, std = values[:, :, None, None]
        self._scale, self._shift = std / own_std, (mean - own_mean) / own_std

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 (N, C) probabilities."""
        images = images * self._scale + self._shift
        if images.shape[-1] != self._size:
            shrinks = images.shape[-1] > self._size
            images = F.interpolate(images, (self._size, self._size), mode="bilinear", antialias=shrinks)
        return self._model(images.to(memory_format=torch.channels_last)).float().softmax(dim=1)


def build_teacher(
    training: TrainingParams, emotions: Sequence[str], preprocessing: Preprocessing, device: torch.device
) -> Teacher | None:
    """Return the network that `training.teacher` names; None without one, or where it is a table."""
    if training.teacher is None or is_table(training.teacher):
        return None
    return Teacher(training.teacher, emotions, preprocessing, device)
