"""Predict emotions in batches, of faces in memory or in the packed store."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn

from fer_lib.models.preprocessing import Preprocessing, normalise, resize_face, to_rgb
from fer_lib.training.loading import FaceDataset, build_eval_batches, build_loader
from fer_lib.training.voting import compute_softmax

CROP_SHARE = 0.9
"""Side of the five crops as a share of the face: four corners and the middle."""

CROPS = {
    "top left": (0.0, 0.0),
    "top right": (0.0, 1.0),
    "bottom left": (1.0, 0.0),
    "bottom right": (1.0, 1.0),
    "middle": (0.5, 0.5),
}
"""The shares of what a crop leaves that lie above it and to its left."""

PLAIN, FLIP = ("whole",), ("whole", "whole flipped")
ALL = (*FLIP, *CROPS, *(f"{name} flipped" for name in CROPS))
"""Views by name: the face, with its mirror image, and with five crops of both."""

MIN_FACES_FOR_WORKERS = 2000
"""Fewer are loaded sooner than processes start."""


class View:
    """Turn a face into the network's input, seen in one of `ALL` ways; `whole` is what evaluation sees."""

    def __init__(self, preprocessing: Preprocessing, name: str = "whole"):
        self._preprocessing = preprocessing
        self._place = name.removesuffix(" flipped")
        self._is_flipped = name != self._place

    def __call__(self, image: np.ndarray, _seed: int | None = None) -> torch.Tensor:
        """Return float32 (3, S, S) of a uint8 (H, W) or (H, W, 3) face."""
        size = self._preprocessing.image_size
        if self._place in CROPS:
            larger = round(size / CROP_SHARE)
            top, left = (int(share * (larger - size)) for share in CROPS[self._place])
            seen = resize_face(image, larger)[top : top + size, left : left + size]
        else:
            seen = resize_face(image, size)
        if self._is_flipped:
            seen = seen[:, ::-1]
        return torch.from_numpy(normalise(to_rgb(np.ascontiguousarray(seen)), self._preprocessing))


class Predictor:
    """A network, float32 (N, 3, S, S) to logits (N, C), that predicts where it lies, a batch at a time."""

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, batch_size: int = 64):
        self.model, self.preprocessing, self.batch_size = model, preprocessing, batch_size

    def predict_logits(
        self, faces: Sequence[np.ndarray] | np.ndarray, rows: np.ndarray | None = None, view: str = "whole"
    ) -> np.ndarray:
        """Return float32 (N, C) logits of the faces in `rows`, int (N,), in this order; of all without it.

        `faces` are uint8 (H, W) or (H, W, 3) each, such as `PackedDataset.faces`; `view` is one of `ALL`.
        """
        rows = np.arange(len(faces)) if rows is None else rows
        dataset = FaceDataset(faces, View(self.preprocessing, view))
        batches = build_eval_batches(rows, self.batch_size)
        in_process = len(rows) < MIN_FACES_FOR_WORKERS
        return run_batches(self.model, build_loader(dataset, batches, in_process))

    def predict(
        self,
        faces: Sequence[np.ndarray] | np.ndarray,
        rows: np.ndarray | None = None,
        views: Sequence[str] = PLAIN,
    ) -> np.ndarray:
        """Return float64 (N, C) probabilities, the mean over `views`; see `predict_logits`.

        More than one view is test-time augmentation.
        """
        total = sum(compute_softmax(self.predict_logits(faces, rows, view)) for view in views)
        return np.asarray(total / len(views))


def run_batches(model: nn.Module, batches: Iterable[torch.Tensor]) -> np.ndarray:
    """Return float32 (N, C) logits of batches, each float32 (B, 3, S, S), in their order."""
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        chunks = [
            model(images.to(device, memory_format=torch.channels_last)).float().cpu() for images in batches
        ]
    return torch.cat(chunks).numpy()
