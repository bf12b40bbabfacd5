"""Contrast of eyes, brows and mouth with the skin by the skin's grey, in photographs and in drawn faces.

    python benchmarks/tone_contrast.py [--photographs 3000] [--drawn 1500]

All are cut as FER2013's faces are, 48 x 48 and grey. Contrast is (skin - region) / (skin + region) of the
cheeks' median and the region's mean; detail is the region's standard deviation over its mean. A photograph's
grey mixes skin and exposure, and exposure alone would leave the contrast nearly as it is. Slopes are those
of straight lines, for 100 grey levels and where drawn skin lies, with 95 % intervals.
"""

import argparse
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from scipy.stats import linregress

from demo_faces.factors import N_SKIN_TONES, sample_factors
from demo_faces.scene import draw_face
from fer_lib.data.detector import Detector
from fer_lib.data.framing import FER2013_FRAMING, cut_face, find_landmarks
from fer_lib.data.packed import load_packed

# Ellipses and their mirror images: (x, y, half width, half height) as shares of the side.
CHEEKS = (0.27, 0.575, 0.075, 0.06)
REGIONS = {
    "eyes": (0.308, 0.38, 0.115, 0.06),
    "brows": (0.3, 0.255, 0.125, 0.06),
    "mouth": (0.5, 0.755, 0.19, 0.075),
}
MEASURES = [f"{what}, {name}" for what in ("contrast", "detail") for name in REGIONS]
BINS, DRAWN_SIZE = (55, 70, 90, 110, 130, 150, 165), 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=int, default=3000)
    parser.add_argument("--drawn", type=int, default=1500)
    arguments = parser.parse_args()
    data, factors = load_packed("fer2013"), [sample_factors(0, i) for i in range(arguments.drawn)]
    rows = data.get_rows("train")
    rows = rows[:: max(1, len(rows) // arguments.photographs)]
    print(f"{'skin':<22}{'faces':>6}" + "".join(f"{name:>17}" for name in MEASURES))
    skin, values, _ = measure(data.faces[row] for row in rows)
    print_by_grey("photographs", skin, values)
    skin, values, found = measure(draw_face(one, DRAWN_SIZE)[0] for one in factors)
    print_by_grey("drawn", skin, values)
    tones = np.array([one.identity.skin_tone for one in factors])
    for tone in range(1, N_SKIN_TONES + 1):
        own, share = tones[found] == tone, found[tones == tone].mean()
        print_row(f"drawn, tone {tone} ({np.median(skin[own]):.0f})", values[own], f"  {share:.1%} found")


def measure(faces: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return skin's grey (n,) and `MEASURES` (n, 6) of the faces found, and which these are, bool (N,)."""
    detector, crops, found = Detector(min_score=0.6), [], []
    for face in faces:
        face = face if face.ndim == 3 else np.repeat(face[..., None], 3, axis=2)
        landmarks = find_landmarks(face, detector)
        found.append(landmarks is not None)
        if landmarks is not None:
            crops.append(cut_face(face, landmarks * len(face), FER2013_FRAMING))
    pixels = np.array(crops, float)
    skin = np.median(pixels[:, mark(*CHEEKS)], axis=1)
    regions = [pixels[:, mark(*ellipse)] for ellipse in REGIONS.values()]
    means = np.maximum([region.mean(axis=1) for region in regions], 1)
    details = [region.std(axis=1) for region in regions] / means
    return skin, np.concatenate([(skin - means) / (skin + means), details]).T, np.array(found)


def mark(x: float, y: float, half_width: float, half_height: float) -> np.ndarray:
    grid = (np.arange(FER2013_FRAMING.size) + 0.5) / FER2013_FRAMING.size
    across = np.minimum(np.abs(grid - x), np.abs(grid - (1 - x))) / half_width
    return across**2 + ((grid[:, None] - y) / half_height) ** 2 <= 1


def print_by_grey(name: str, skin: np.ndarray, values: np.ndarray) -> None:
    for low, high in pairwise(BINS):
        print_row(f"{name}, {low} to {high}", values[(skin >= low) & (skin < high)])
    inside = (skin >= BINS[0]) & (skin < BINS[-1])
    fits = (linregress(skin[inside] / 100, value) for value in values[inside].T)
    slopes = (f"{fit.slope:.3f} ± {1.96 * fit.stderr:.3f}" for fit in fits)
    print(f"{name + ', slope':<22}{inside.sum():>6}" + "".join(f"{slope:>17}" for slope in slopes))


def print_row(name: str, values: np.ndarray, note: str = "") -> None:
    print(f"{name:<22}{len(values):>6}" + "".join(f"{x:>17.3f}" for x in values.mean(axis=0)) + note)


if __name__ == "__main__":
    main()
