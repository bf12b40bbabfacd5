"""Faces a model was not made from: a folder of pictures sorted by emotion, or another data set's test."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from fer_lib.datasets.files import list_images, read_image
from fer_lib.detector import Detector
from fer_lib.errors import DataError
from fer_lib.evaluation import summarise
from fer_lib.framing import cut_face, find_landmarks
from fer_lib.labels import normalise_emotion
from fer_lib.packed import load_packed
from fer_lib.paths import get_packed_dir
from fer_lib.recognizer import Recognizer

SMALLEST_SEARCHED = 64
"""Pixels: pictures no larger are faces that were cut out already, and are taken whole."""

LEFT_OUT = "left out"


@dataclass(frozen=True)
class OutsideFaces:
    """Faces in a model's framing.

    crops: uint8, as `Face.crop`.   labels: int (N,), indices into the model's emotions.   mapping: one row
    per class of the source: class, model's emotion (or `left out`), how, pictures.
    """

    crops: list[np.ndarray]
    labels: np.ndarray
    mapping: pd.DataFrame


def load_outside(recognizer: Recognizer, data: str) -> OutsideFaces:
    """Return the faces of `data`: a packed data set's test split, by name, or a folder of class folders.

    In a picture the largest face is cut out as the model's training faces were; where YuNet finds none,
    and where the picture is a crop already, it is taken whole. Raises DataError when there is nothing that
    the model could name.
    """
    emotions = recognizer.emotions
    if (get_packed_dir(data) / "meta.json").is_file():
        packed = load_packed(data)
        rows = packed.get_rows("test")
        names = [packed.emotions[label] for label in packed.labels[rows]]
        pictures = list(zip((np.asarray(packed.faces[row]) for row in rows), names, strict=True))
        mapping = map_classes(packed.emotions, emotions, names)
    elif Path(data).is_dir():
        pictures = [
            (path, child.name)
            for child in sorted(Path(data).iterdir())
            if child.is_dir() and not child.name.startswith(".")
            for path in list_images(child)
        ]
        given = [name for _, name in pictures]
        mapping = map_classes(sorted(set(given)), emotions, given)
    else:
        raise DataError(f"{data}: expected a packed data set or a folder of class folders, found neither")
    known = dict(zip(mapping["class"], mapping["model's emotion"], strict=True))
    kept = [(picture, known[name]) for picture, name in pictures if known[name] != LEFT_OUT]
    if not kept:
        raise DataError(f"{data}: expected faces of {', '.join(emotions)}, found none; see data/README.md")
    detector, crops, labels = Detector(min_score=0.6), [], []
    for picture, name in tqdm(kept, desc="faces", unit="face", disable=None, leave=False):
        try:
            pixels = read_image(picture) if isinstance(picture, Path) else picture
        except ValueError as error:
            raise DataError(f"{picture}: {error}; mend or remove it") from None
        crops.append(cut_largest(recognizer, pixels, detector))
        labels.append(emotions.index(name))
    return OutsideFaces(crops, np.array(labels), mapping)


def locate_in_crops(recognizer: Recognizer, crops: Sequence[np.ndarray]) -> np.ndarray:
    """Return landmarks, float (N, 5, 2), fractions of the side; the framing's own where YuNet finds none."""
    detector, typical = Detector(min_score=0.6), np.array(recognizer.framing.landmarks)
    found = [find_landmarks(crop, detector) for crop in crops]
    return np.array([typical if points is None else points for points in found])


def map_classes(classes: Sequence[str], emotions: Sequence[str], given: Sequence[str]) -> pd.DataFrame:
    """Return how the classes of a source are read: class, model's emotion, how, pictures; in their order.

    given: the class of every picture. A class that the model cannot name is left out.
    """
    counts, rows = pd.Series(list(given), dtype=object).value_counts(), []
    for name in classes:
        try:
            emotion = normalise_emotion(name)
        except KeyError:
            emotion, how = LEFT_OUT, "no emotion known here"
        else:
            how = "same name" if emotion == name else f"other spelling of {emotion}"
            if emotion not in emotions:
                emotion, how = LEFT_OUT, "the model has no such class"
        rows.append((name, emotion, how, int(counts.get(name, 0))))
    return pd.DataFrame(rows, columns=["class", "model's emotion", "how", "pictures"])


def cut_largest(recognizer: Recognizer, pixels: np.ndarray, detector: Detector) -> np.ndarray:
    """Return the largest face of a picture, uint8 grey or RGB, in the model's framing."""
    framing = recognizer.framing
    colour = pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if min(colour.shape[:2]) > SMALLEST_SEARCHED:
        faces = detector.detect(np.ascontiguousarray(colour))
        if faces:
            return cut_face(colour, faces[0].landmarks, framing)
    grey = framing.channels == 1
    whole = cv2.cvtColor(np.ascontiguousarray(colour), cv2.COLOR_RGB2GRAY) if grey else colour
    size = (framing.size, framing.size)
    shrinks = max(whole.shape[:2]) > framing.size
    return cv2.resize(whole, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def evaluate_outside(
    recognizer: Recognizer, faces: OutsideFaces, n_resamples: int, seed: int
) -> dict[str, float]:
    """Return the metrics of `evaluation.summarise` on these faces, under `outside.`."""
    probabilities = recognizer.compute_probabilities(faces.crops)
    return summarise("outside", faces.labels, probabilities, recognizer.emotions, n_resamples, seed)
