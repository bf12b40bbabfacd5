"""Detection on photographs: which threshold, and which way up.

    python benchmarks/detection.py FOLDER

FOLDER holds photographs, upright, with or without faces; none comes with the project. The first table says,
by threshold, what share of the faces is found in smaller, darker, blurred and compressed copies, and how many
places are taken for faces once the faces are covered. A face is what scores 0.9 in one of the copies; less
sure ones are covered, too, and count as neither. The second table turns every photograph and says for how
many faces the line through the eyes comes out right, and what becomes of their labels.
"""

import argparse
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from fer_lib.data.detector import CANDIDATE, Detection, Detector
from fer_lib.data.image_files import expand_paths
from fer_lib.data.images import read_image
from fer_lib.inference.faces import Face
from fer_lib.inference.recognizer import Recognizer

THRESHOLDS = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85)
SURE = 0.9
MAX_SIDE = 1000
"""Pixels to which larger photographs are shrunk first."""


def degrade(image: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the image and poorer copies of it, each at two more scales."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=15)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    dark = (image * 0.3).astype(np.uint8)
    for copy in (image, grey, dark, cv2.GaussianBlur(image, (0, 0), 2), read_image(stream.getvalue())):
        for scale in (1, 0.5, 0.25):
            if min(copy.shape[:2]) * scale >= 32:
                yield cv2.resize(copy, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def find_centres(faces: list[Detection], scale: float) -> np.ndarray:
    """Return (N, 4): the centre of each box, its side and its score, in pixels of the full image."""
    rows = [
        (box[0] + box[2] / 2, box[1] + box[3] / 2, max(box[2:]), face.score / scale)
        for face in faces
        for box in (face.box,)
    ]
    return np.array(rows).reshape(-1, 4) * scale


def match(row: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return which of the others lie where the row does, bool (N,)."""
    return np.abs(others[:, :2] - row[:2]).max(axis=1, initial=0) < row[2] / 3


def count_by_threshold(image: np.ndarray, detector: Detector) -> np.ndarray:
    """Return (len(THRESHOLDS), 3): faces found in the copies, faces there are, places found without faces."""
    found = [
        find_centres(detector._detect_as_is(np.ascontiguousarray(copy), 12), image.shape[1] / copy.shape[1])
        for copy in degrade(image)
    ]
    places: list[np.ndarray] = []
    everything = np.vstack(found)
    for row in everything[np.argsort(-everything[:, 3])]:
        if not places or not match(row, np.array(places)).any():
            places.append(row)
    counts = np.zeros((len(THRESHOLDS), 3))
    for place in places:
        if place[3] >= SURE:
            scores = np.array([rows[match(place, rows), 3].max(initial=0) for rows in found])
            counts[:, 0] += (scores >= np.array(THRESHOLDS)[:, None]).sum(axis=1)
            counts[:, 1] += len(found)
    covered = cover(image, places)
    for scale in (0.5, 1, 2.5):
        copy = cv2.resize(covered, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        for face in detector.detect(copy):
            counts[:, 2] += face.score >= np.array(THRESHOLDS)
    return counts


def cover(image: np.ndarray, places: list[np.ndarray]) -> np.ndarray:
    """Return the image with a square of its mean colour, twice as wide as the face, over each place."""
    covered = image.copy()
    for x, y, side, _ in places:
        left, top = max(0, round(x - side)), max(0, round(y - side))
        covered[top : round(y + side), left : round(x + side)] = image.mean(axis=(0, 1))
    return covered


def count_turns(image: np.ndarray, recognizer: Recognizer) -> Counter[tuple[int, str]]:
    """Return how often the faces of the turned image are found, right, unsure, and wrong but sure."""
    counts: Counter[tuple[int, str]] = Counter()
    upright, size = recognizer(image), np.array(image.shape[1::-1])
    for quarters in range(4):
        found = recognizer(np.ascontiguousarray(np.rot90(image, quarters)))
        for face in upright:
            centre, sides = measure_centre(face), size
            for _ in range(quarters):
                centre, sides = np.array([centre[1], sides[0] - centre[0]]), sides[::-1]
            near = face.box[2] / 3
            same = [other for other in found if np.abs(measure_centre(other) - centre).max() < near]
            counts[quarters, "faces"] += 1
            if not same:
                continue
            other = same[0]
            off = measure_down(other) - measure_down(face) - 90 * quarters
            counts[quarters, "found"] += 1
            counts[quarters, "eye line right"] += abs((off + 180) % 360 - 180) < 30
            counts[quarters, "unsure"] += other.abstained
            counts[quarters, "same label"] += not other.abstained and other.label == face.label
            counts[quarters, "other label, sure"] += (
                not other.abstained and not face.abstained and other.label != face.label
            )
    return counts


def measure_centre(face: Face) -> np.ndarray:
    """Return x and y of the middle of the box."""
    return np.array(face.box[:2]) + np.array(face.box[2:]) / 2


def measure_down(face: Face) -> float:
    """Return the direction from the eyes to the mouth in degrees, anticlockwise from straight down."""
    down = face.landmarks[3:].mean(axis=0) - face.landmarks[:2].mean(axis=0)
    return float(np.degrees(np.arctan2(down[0], down[1])))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    detector, recognizer = Detector(min_score=CANDIDATE), Recognizer()
    counts, turns = np.zeros((len(THRESHOLDS), 3)), Counter[tuple[int, str]]()
    paths = list(expand_paths([str(folder)], {}))
    for path in paths:
        image = read_image(path)
        shrink = min(1, MAX_SIDE / max(image.shape[:2]))
        image = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        counts += count_by_threshold(image, detector)
        turns += count_turns(image, recognizer)
    print(f"{len(paths)} photographs, {counts[0, 1]:.0f} faces in their copies\n")
    print("threshold   found   places without faces")
    for threshold, (n_found, n_true, n_other) in zip(THRESHOLDS, counts, strict=True):
        print(f"{threshold:9.2f}  {n_found / n_true:6.1%}  {n_other:21.0f}")
    keys = ("faces", "found", "eye line right", "same label", "unsure", "other label, sure")
    print("\nturned  " + "".join(f"{key:>19s}" for key in keys))
    for quarters in range(4):
        print(f"{90 * quarters:6d}  " + "".join(f"{turns[quarters, key]:19d}" for key in keys))


if __name__ == "__main__":
    main()
