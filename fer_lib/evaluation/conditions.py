"""Faces as another camera, detector or lamp would have given them: fixed alterations to score networks on."""

from collections.abc import Callable, Mapping
from functools import partial

import cv2
import numpy as np
import pandas as pd
from torch import nn

from fer_lib.data.packed import PackedDataset
from fer_lib.models.preprocessing import Preprocessing
from fer_lib.training.predict import predict_logits


def frame(face: np.ndarray, zoom_x: float, zoom_y: float, shift: float = 0.0) -> np.ndarray:
    """Return the face enlarged about its middle and moved right and down by `shift` of its side.

    face: uint8 (H, W) or (H, W, 3). What comes in from outside repeats the border.
    """
    height, width = face.shape[:2]
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    zoom = np.array([zoom_x, zoom_y])
    matrix = np.column_stack([np.diag(zoom), middle - zoom * middle + shift * np.array([width, height])])
    return cv2.warpAffine(face, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)


def relight(face: np.ndarray, gain: float, offset: float = 0.0, slope: float = 0.0) -> np.ndarray:
    """Return gain x pixels + offset (grey levels), times 1 - slope at the left to 1 + slope at the right."""
    ramp = np.linspace(1 - slope, 1 + slope, face.shape[1])
    ramp = ramp[:, None] if face.ndim == 3 else ramp
    return np.clip((face * gain + offset) * ramp, 0, 255).round().astype(np.uint8)


def coarsen(face: np.ndarray, share: float) -> np.ndarray:
    """Return the face reduced to this share of its side and enlarged again."""
    size = (round(face.shape[1] * share), round(face.shape[0] * share))
    small = cv2.resize(face, size, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, face.shape[1::-1], interpolation=cv2.INTER_LINEAR)


CONDITIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "unchanged": np.copy,
    "tighter": partial(frame, zoom_x=1.25, zoom_y=1.25),
    "wider": partial(frame, zoom_x=0.8, zoom_y=0.8),
    "narrower": partial(frame, zoom_x=0.85, zoom_y=1.0),
    "shifted": partial(frame, zoom_x=1.0, zoom_y=1.0, shift=0.1),
    "darker": partial(relight, gain=0.4),
    "flatter": partial(relight, gain=0.5, offset=80),
    "side light": partial(relight, gain=1.0, slope=0.5),
    "coarser": partial(coarsen, share=0.5),
}
"""What a detector's other margin, a lens, a lamp or a distance do, at strengths that a person still reads."""


def alter(data: PackedDataset, rows: np.ndarray, condition: str) -> PackedDataset:
    """Return `data.take(rows)` with every face under a condition."""
    taken = data.take(rows)
    return PackedDataset(
        np.stack([CONDITIONS[condition](face) for face in taken.faces]), taken.index, data.meta
    )


def predict_conditions(
    model: nn.Module, data: PackedDataset, rows: np.ndarray, preprocessing: Preprocessing, batch_size: int
) -> dict[str, np.ndarray]:
    """Return for every condition the emotions (as index) that `model` names on `rows`, int (N,)."""
    every = np.arange(len(rows))
    return {
        condition: predict_logits(
            model, alter(data, rows, condition), every, preprocessing, batch_size
        ).argmax(axis=1)
        for condition in CONDITIONS
    }


def score_conditions(named: Mapping[str, Mapping[str, np.ndarray]], labels: np.ndarray) -> pd.DataFrame:
    """Return accuracies (0 to 1): one row per network, one column per condition.

    named: network to what `predict_conditions` returned.   labels: int (N,) of the same faces.
    """
    shares = {name: {c: np.mean(found == labels) for c, found in by.items()} for name, by in named.items()}
    return pd.DataFrame.from_dict(shares, orient="index")
