"""Which margin and alignment suit a model best? Faces of the validation split are found and cut out anew.

    python benchmarks/framing.py [--dataset fer2013] [--model photographs]

Every face is enlarged, put on a larger canvas and, in the second column, turned by 30 degrees, as in
photos; then it is detected, cut out in several ways and classified. All ways see the same images, those
in which a face is found in both columns. A packed face has few pixels, so cutting it out again costs
sharpness: `cut out, not moved` is what any of the others could reach. `fer_lib/data/framing.py` cuts by five
points at zoom 1.
"""

import argparse
from dataclasses import replace

import cv2
import numpy as np
from tqdm import tqdm

from fer_lib.data.detector import Detection, Detector
from fer_lib.data.framing import Framing, cut_face, estimate_similarity
from fer_lib.data.packed import load_packed
from fer_lib.inference.recognizer import Recognizer

ENLARGED, CANVAS = 288, 448
"""Pixels: side of the enlarged face, and of the canvas that leaves room to turn it."""


def put_on_canvas(face: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the RGB canvas with the face turned in its middle, and the matrix from its frame to it."""
    scale = ENLARGED / face.shape[0]
    matrix = cv2.getRotationMatrix2D((face.shape[1] / 2, face.shape[0] / 2), degrees, scale)
    matrix[:, 2] += (CANVAS - face.shape[0]) / 2
    canvas = cv2.warpAffine(
        np.ascontiguousarray(face),
        matrix,
        (CANVAS, CANVAS),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return (cv2.cvtColor(canvas, cv2.COLOR_GRAY2RGB) if canvas.ndim == 2 else canvas), matrix


def zoom_framing(framing: Framing, zoom: float) -> Framing:
    """Return the framing with its landmarks moved apart; 1 is the median face, as measured."""
    points = (np.array(framing.landmarks) - 0.5) * zoom + 0.5
    return replace(framing, landmarks=tuple(map(tuple, points)))


def keep_upright(landmarks: np.ndarray, framing: Framing) -> np.ndarray:
    """Return the framing's landmarks, scaled and shifted but not turned, where `landmarks` are."""
    template = np.array(framing.landmarks)
    matrix = estimate_similarity(template, landmarks)
    scale = np.hypot(*matrix[:, 0])
    return (template - template.mean(axis=0)) * scale + landmarks.mean(axis=0)


def from_eyes(landmarks: np.ndarray, framing: Framing) -> np.ndarray:
    """Return the framing's landmarks turned, scaled and shifted so that the eyes alone fit."""
    template = np.array(framing.landmarks)
    matrix = estimate_similarity(template[:2], landmarks[:2])
    return template @ matrix[:, :2].T + matrix[:, 2]


def from_box(face: Detection, margin: float, framing: Framing) -> np.ndarray:
    """Return the framing's landmarks in the square around the detector's box, enlarged by `margin`."""
    left, top, width, height = face.box
    side = max(width, height) * margin
    corner = np.array([left + width / 2 - side / 2, top + height / 2 - side / 2])
    return np.array(framing.landmarks) * side + corner


def main() -> None:
    """Print accuracy by way of cutting out, upright and turned."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="fer2013")
    parser.add_argument("--model", default="photographs")
    parser.add_argument("--n-faces", type=int, default=3589, help="of the validation split, evenly spread")
    options = parser.parse_args()
    data, recognizer, detector = load_packed(options.dataset), Recognizer(options.model), Detector(0.6)
    framing = recognizer.framing
    rows = data.get_rows("val")
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(options.n_faces, len(rows))).astype(int))]

    crops: dict[str, dict[float, list[np.ndarray]]] = {}
    found = []
    for row in tqdm(rows, unit="face", desc="cut out"):
        images = {degrees: put_on_canvas(data.faces[row], degrees) for degrees in (0.0, 30.0)}
        faces = {degrees: detector.detect(canvas, min_face=30) for degrees, (canvas, _) in images.items()}
        if not all(faces.values()):
            continue
        found.append(row)
        for degrees, (canvas, matrix) in images.items():
            face = faces[degrees][0]
            frame = np.array(framing.landmarks) * data.faces.shape[1] - 0.5
            ways = {"cut out, not moved": (frame @ matrix[:, :2].T + matrix[:, 2], 1.0)}
            for zoom in (0.9, 0.95, 1.0, 1.05, 1.1, 1.15):
                ways[f"five points, zoom {zoom}"] = (face.landmarks, zoom)
            for zoom in (1.0, 1.05, 1.1):
                ways[f"five points, not turned, zoom {zoom}"] = (keep_upright(face.landmarks, framing), zoom)
                ways[f"two eyes, zoom {zoom}"] = (from_eyes(face.landmarks, framing), zoom)
            for margin in (0.9, 1.0, 1.1, 1.2):
                ways[f"box, margin {margin}"] = (from_box(face, margin, framing), 1.0)
            for name, (landmarks, zoom) in ways.items():
                crop = cut_face(canvas, landmarks, zoom_framing(framing, zoom))
                crops.setdefault(name, {}).setdefault(degrees, []).append(crop)

    labels = data.labels[np.array(found)]

    def score(images: list[np.ndarray]) -> float:
        parts = [recognizer.compute_probabilities(images[i : i + 128]) for i in range(0, len(images), 128)]
        return float((np.concatenate(parts).argmax(axis=1) == labels).mean())

    print(f"{options.model} on {len(found):,} of {len(rows):,} validation faces of {options.dataset}")
    print(f"standard error of one accuracy: {np.sqrt(0.25 / len(found)):.3f}; of differences, less\n")
    print(f"{'way':36s} upright  turned by 30")
    print(f"{'as packed':36s} {score([data.faces[row] for row in found]):.4f}")
    for name, by_degrees in crops.items():
        print(f"{name:36s} {score(by_degrees[0.0]):.4f}   {score(by_degrees[30.0]):.4f}", flush=True)


if __name__ == "__main__":
    main()
