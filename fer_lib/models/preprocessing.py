"""Turn a cropped face into the network's input, without torch: for training, evaluation, ONNX Runtime."""

from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np


@dataclass(frozen=True)
class Preprocessing:
    """What a model expects of its input: its side in pixels, and mean and std of RGB values in 0..1."""

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """Return the object that `to_dict` described."""
        return cls(values["image_size"], tuple(values["mean"]), tuple(values["std"]))


def resize_face(image: np.ndarray, size: int) -> np.ndarray:
    """Return the face at size x size pixels, uint8 with the channels of `image`.

    Linear up, area down: a 48-pixel face is enlarged smoothly, a large crop does not alias.
    """
    if image.shape[:2] == (size, size):
        return image
    shrinks = max(image.shape[:2]) > size
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Return a uint8 (H, W) or (H, W, 3) face as (H, W, 3) RGB."""
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image


def normalise(images: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Return the network input, float32 (..., 3, S, S), of uint8 (..., S, S, 3) RGB faces."""
    mean = np.array(preprocessing.mean, np.float32) * np.float32(255)
    std = np.array(preprocessing.std, np.float32) * np.float32(255)
    pixels = np.moveaxis(images, -1, -3).astype(np.float32)
    pixels -= mean[:, None, None]
    pixels /= std[:, None, None]
    return pixels


def preprocess(faces: list[np.ndarray], preprocessing: Preprocessing) -> np.ndarray:
    """Return float32 (N, 3, S, S) for N cropped faces, uint8 (H, W) grey or (H, W, 3) RGB of any sizes."""
    size = preprocessing.image_size
    if not faces:
        return np.empty((0, 3, size, size), np.float32)
    return normalise(np.stack([to_rgb(resize_face(face, size)) for face in faces]), preprocessing)
