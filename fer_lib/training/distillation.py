"""A trained network that teaches another: it says of every augmented batch what it sees there.

Unlike probabilities written down once, these are of the very picture that the student is shown, so that a
long training finds no targets to learn by heart (Beyer et al. 2022, "A good teacher is patient and
consistent").
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn import functional as F  # noqa: N812

from fer_lib.errors import ModelError
from fer_lib.models.build import load_checkpoint
from fer_lib.models.checkpoints import WEIGHTS_NAME
from fer_lib.models.preprocessing import Preprocessing
from fer_lib.params import TrainingParams
from fer_lib.provenance import hash_file
from fer_lib.training.targets import is_table


class Teacher:
    """Input of the student, float (N, 3, S, S), to the teacher's probabilities, float32 (N, C)."""

    def __init__(
        self, folder: Path, emotions: Sequence[str], preprocessing: Preprocessing, device: torch.device
    ):
        """preprocessing: the student's. Raises ModelError when the teacher is missing or of other classes."""
        checkpoint = load_checkpoint(folder, device)
        if checkpoint.emotions != tuple(emotions):
            raise ModelError(
                f"training.teacher: {folder}: expected a network of {', '.join(emotions)}, "
                f"found {', '.join(checkpoint.emotions)}"
            )
        self.weights_sha256 = hash_file(folder / WEIGHTS_NAME)
        self._model, self._size = checkpoint.model, checkpoint.preprocessing.image_size
        mean, std = (
            [
                torch.tensor(getattr(each, key), device=device)[:, None, None]
                for each in (checkpoint.preprocessing, preprocessing)
            ]
            for key in ("mean", "std")
        )
        # From the student's normalisation to the teacher's in one step.
        self._scale, self._shift = std[1] / std[0], (mean[1] - mean[0]) / std[0]

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """See the class; images of another size than the teacher's are resized."""
        images = images * self._scale + self._shift
        if images.shape[-1] != self._size:
            shrinks = images.shape[-1] > self._size
            images = F.interpolate(images, (self._size, self._size), mode="bilinear", antialias=shrinks)
        return self._model(images.to(memory_format=torch.channels_last)).float().softmax(dim=1)


def build_teacher(
    training: TrainingParams, emotions: Sequence[str], preprocessing: Preprocessing, device: torch.device
) -> Teacher | None:
    """Return the teacher that `training.teacher` names; None without one, or where it is a table.

    Raises what `Teacher` does.
    """
    if training.teacher is None or is_table(training.teacher):
        return None
    return Teacher(training.teacher, emotions, preprocessing, device)
