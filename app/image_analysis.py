"""Analyse images for the pages Photo and Compare, and encode what is shown and handed out; all in memory."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from demo_faces.clips import PlacedFace
from fer_lib.data.images import read_image
from fer_lib.inference.faces import Face
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.tracking import TrackedFace

# Pixels a side at most: of the image on the page, which is narrower, and of a JPEG at all.
SHOWN_SIDE, JPEG_SIDE = 1600, 65_500


@dataclass(frozen=True)
class Analysis:
    """What came of an image."""

    pixels: np.ndarray
    """uint8 (H, W, 3) RGB."""
    faces: list[Face]
    """Numbered from 1 if there are several."""


def analyse(source: BinaryIO | bytes | np.ndarray, recognizer: Recognizer) -> Analysis:
    """Return an image and its faces, the largest first. Raises MediaError when it cannot be read."""
    if not isinstance(source, np.ndarray | bytes):
        source.seek(0)
    pixels = read_image(source)
    faces = recognizer(pixels)
    if len(faces) > 1:  # `draw_faces` writes the number of a track, which tells here whose card is whose
        faces = [TrackedFace(**vars(face), track=number) for number, face in enumerate(faces, start=1)]
    return Analysis(pixels, faces)


def count_correct(placed: Sequence[PlacedFace], faces: Sequence[Face]) -> int:
    """Return how many drawn faces are found and named by the emotion with which they were drawn."""
    return sum(
        any(_is_inside(face, drawn) and face.label == drawn.emotion and not face.abstained for face in faces)
        for drawn in placed
    )


def _is_inside(face: Face, drawn: PlacedFace) -> bool:
    x, y = (face.box[axis] + face.box[axis + 2] / 2 - drawn.box[axis] for axis in (0, 1))
    return 0 < x < drawn.box[2] and 0 < y < drawn.box[3]


def count_faces(faces: Sequence[Face]) -> str:
    """Return `1 face`, `no faces`, `7 faces`."""
    return "1 face" if len(faces) == 1 else f"{len(faces) or 'no'} faces"


def shrink(pixels: np.ndarray, side: int) -> np.ndarray:
    """Return an image, uint8 (H, W, 3), made no larger than `side` pixels a side."""
    scale = side / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    height, width = (max(1, round(length * scale)) for length in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def encode_jpeg(pixels: np.ndarray, side: int = JPEG_SIDE) -> bytes:
    """Return an image, uint8 (H, W, 3) RGB, as a JPEG without any of the original's metadata."""
    out = io.BytesIO()
    Image.fromarray(shrink(pixels, side)).save(out, "JPEG", quality=92)
    return out.getvalue()
