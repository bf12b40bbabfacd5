"""A trained network that teaches another one (online knowledge distillation).

It predicts every augmented batch. Unlike a table of probabilities it sees the very image that the student is
shown, so that a long training finds no targets to learn by heart (Beyer et al. 2022, "A good teacher is
patient and consistent").
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn import functional as F  # noqa: N812

from fer_lib.errors import ModelError
from fer_lib.models.build import load_checkpoint
from fer_lib.models.checkpoints import WEIGHTS_NAME
from fer_lib.models.preprocessing import Preprocessing
from fer_lib.param_sections import TrainingParams
from fer_lib.provenance import hash_file
from fer_lib.training.targets import is_table


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
                f"training.teachers: {folder}: expected a network of {', '.join(emotions)}, "
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


def build_teachers(
    training: TrainingParams, emotions: Sequence[str], preprocessing: Preprocessing, device: torch.device
) -> list[Teacher]:
    """Return the networks among `training.teachers`; its tables are no networks, see `targets`."""
    return [
        Teacher(path, emotions, preprocessing, device) for path in training.teachers if not is_table(path)
    ]
