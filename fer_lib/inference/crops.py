"""Cut the one face out of an image that is a labelled example."""

import cv2
import numpy as np

from fer_lib.data.detector import Detector
from fer_lib.data.framing import cut_face
from fer_lib.inference.recognizer import LARGEST_CROP, Recognizer


def cut_largest(recognizer: Recognizer, pixels: np.ndarray, detector: Detector) -> np.ndarray | None:
    """Return the largest face of an image, uint8 grey or RGB, in the model's framing; None: none found.

    pixels: uint8 (H, W) or (H, W, 3) RGB. One of `LARGEST_CROP` or less is a crop, and taken whole.
    """
    framing = recognizer.framing
    colour = pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if max(colour.shape[:2]) > LARGEST_CROP:
        faces = detector.detect(np.ascontiguousarray(colour))
        return cut_face(colour, faces[0].landmarks, framing) if faces else None
    grey = framing.channels == 1
    whole = cv2.cvtColor(np.ascontiguousarray(colour), cv2.COLOR_RGB2GRAY) if grey else colour
    size = (framing.size, framing.size)
    shrinks = max(whole.shape[:2]) > framing.size
    return cv2.resize(whole, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
