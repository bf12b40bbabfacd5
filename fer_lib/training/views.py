"""Test-time augmentation: one face seen several times, the probabilities averaged."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from fer_lib.data.packed import PackedDataset
from fer_lib.models.preprocessing import Preprocessing, normalise, resize_face, to_rgb
from fer_lib.training.loading import FaceDataset, build_eval_batches, build_loader
from fer_lib.training.predict import compute_softmax, run_batches

CROP_SHARE = 0.9
"""Side of the five crops as a share of the face: four corners and the middle."""

PLAIN, FLIP = ("whole",), ("whole", "whole flipped")
CROPS = ("top left", "top right", "bottom left", "bottom right", "middle")
ALL = (*FLIP, *CROPS, *(f"{name} flipped" for name in CROPS))
"""Views by name: as it is, with its mirror image, and with five crops of both."""


class View:
    """Face to network input, as `transforms.Transform` in evaluation, seen in one way."""

    def __init__(self, preprocessing: Preprocessing, name: str):
        self._preprocessing = preprocessing
        self._place = name.removesuffix(" flipped")
        self._is_flipped = name != self._place

    def __call__(self, image: np.ndarray, _seed: int | None = None) -> torch.Tensor:
        """Return float32 (3, S, S) of a uint8 (H, W) or (H, W, 3) face."""
        size = self._preprocessing.image_size
        if self._place == PLAIN[0]:
            seen = resize_face(image, size)
        else:
            larger = round(size / CROP_SHARE)
            top, left = _find_corner(self._place, larger - size)
            seen = resize_face(image, larger)[top : top + size, left : left + size]
        if self._is_flipped:
            seen = seen[:, ::-1]
        return torch.from_numpy(normalise(to_rgb(np.ascontiguousarray(seen)), self._preprocessing))


def predict_views(
    model: nn.Module,
    data: PackedDataset,
    rows: np.ndarray,
    preprocessing: Preprocessing,
    batch_size: int,
    views: Sequence[str] = ALL,
) -> np.ndarray:
    """Return float64 (N, C), the mean probabilities over `views` for each of `rows`."""
    batches = build_eval_batches(rows, batch_size)
    total = 0.0
    for name in views:
        loader = build_loader(FaceDataset(data, View(preprocessing, name)), batches)
        total = total + compute_softmax(run_batches(model, loader))
    return total / len(views)


def _find_corner(place: str, margin: int) -> tuple[int, int]:
    if place == "middle":
        return margin // 2, margin // 2
    vertical, horizontal = place.split()
    return (0 if vertical == "top" else margin), (0 if horizontal == "left" else margin)
