"""Perturb faces as another lamp, pose, crop, camera or object in front of them would: common corruptions.

Every perturbation is a function of one face, a level in a unit, and what `Sample` holds of that face; nothing
is shared between faces, so none can leak. A face is uint8 (H, W) grey or (H, W, 3) RGB; a new one of the same
shape is returned. Robustness is measured on `CORRUPTIONS` (Hendrycks and Dietterich 2019).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from zlib import crc32

import cv2
import numpy as np
import pandas as pd

from fer_lib.evaluation import occlusions

SEVERITIES = range(6)
"""Of a corruption; 0 is the clean face."""

REFERENCE_SIDE = 48
"""Blur is given for a face of so many pixels, that of FER2013, whatever the store's size."""


@dataclass(frozen=True)
class Sample:
    """What a perturbation may know of the face it changes.

    landmarks: float (5, 2), pixels, in the order of `detector.LANDMARKS`.   seed: of this face.
    """

    landmarks: np.ndarray
    seed: int

    def build_generator(self, name: str) -> np.random.Generator:
        """Return random numbers of this face and perturbation; the same at every severity."""
        return np.random.default_rng([self.seed, crc32(name.encode())])

    def draw_sign(self, name: str) -> int:
        """Return -1 or 1 at random."""
        return int(self.build_generator(name).choice([-1, 1]))


@dataclass(frozen=True)
class Corruption:
    """What is done to a face: its family, the unit of its levels, the five levels, and the function."""

    family: str
    unit: str
    levels: tuple[float, ...]
    apply: Callable[[np.ndarray, float, Sample], np.ndarray]


def perturb(face: np.ndarray, name: str, severity: int, sample: Sample) -> np.ndarray:
    """Return the face under one of `CORRUPTIONS`. severity: 0 (clean) to 5."""
    if severity == 0:
        return face.copy()
    chosen = CORRUPTIONS[name]
    return chosen.apply(face, chosen.levels[severity - 1], sample)


def score_conditions(predicted: Mapping[str, Mapping[str, np.ndarray]], labels: np.ndarray) -> pd.DataFrame:
    """Return accuracies (0 to 1): one row per network, one column per condition.

    `predicted` has int (N,), the predictions of the labelled faces, by network and condition.
    """
    shares = {
        name: {c: np.mean(found == labels) for c, found in by.items()} for name, by in predicted.items()
    }
    return pd.DataFrame.from_dict(shares, orient="index")


def warp(face: np.ndarray, zoom_x: float, zoom_y: float) -> np.ndarray:
    """Return the face enlarged about its middle; what comes in from outside repeats the border."""
    middle = _find_middle(face)
    zooms = np.array([zoom_x, zoom_y])
    return _move(face, np.column_stack([np.diag(zooms), middle - zooms * middle]))


def relight(face: np.ndarray, gain: float, offset: float = 0.0, slope: float = 0.0) -> np.ndarray:
    """Return gain x pixels + offset (grey levels), times 1 - slope at the left to 1 + slope at the right."""
    ramp = np.linspace(1 - slope, 1 + slope, face.shape[1])
    ramp = ramp[:, None] if face.ndim == 3 else ramp
    return np.clip((face * gain + offset) * ramp, 0, 255).round().astype(np.uint8)


def expose(face: np.ndarray, stops: float, _sample: Sample) -> np.ndarray:
    """Multiply linear light by 2 ** stops; pixels are taken as sRGB (IEC 61966-2-1)."""
    levels = np.arange(256) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4) * 2**stops
    coded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return cv2.LUT(face, np.clip(255 * coded, 0, 255).round().astype(np.uint8))


def scale_contrast(face: np.ndarray, factor: float, _sample: Sample) -> np.ndarray:
    """Multiply each pixel's distance from the face's mean."""
    return relight(face, factor, float(face.mean()) * (1 - factor))


def apply_gamma(face: np.ndarray, exponent: float, _sample: Sample) -> np.ndarray:
    """Raise pixels, as shares of white, to a power; above 1 the middle tones darken."""
    return cv2.LUT(face, (255 * (np.arange(256) / 255) ** exponent).round().astype(np.uint8))


def light_side(face: np.ndarray, slope: float, sample: Sample) -> np.ndarray:
    """Light one side, at random, by this share more and the other by as much less."""
    return relight(face, 1.0, slope=sample.draw_sign("side light") * slope)


def rotate(face: np.ndarray, degrees: float, sample: Sample) -> np.ndarray:
    """Turn the face in its plane, clockwise or not at random. What comes in repeats the border."""
    middle = _find_middle(face).tolist()
    return _move(face, cv2.getRotationMatrix2D(middle, sample.draw_sign("rotation") * degrees, 1.0))


def turn(face: np.ndarray, degrees: float, sample: Sample, axis: str) -> np.ndarray:
    """Turn the image about its upright (`yaw`) or level (`pitch`) axis, one way at random.

    A flat face seen by a pinhole camera three sides away: what a turned head hides it cannot show.
    """
    angle = np.radians(degrees) * sample.draw_sign(axis)
    side = face.shape[0]
    corners = (np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) - 0.5) * side
    turned = 0 if axis == "yaw" else 1
    depth = 3 * side + corners[:, turned] * np.sin(angle)
    seen = corners.copy()
    seen[:, turned] *= np.cos(angle)
    seen *= (3 * side / depth)[:, None]
    middle = (side - 1) / 2
    matrix = cv2.getPerspectiveTransform(
        (corners + middle).astype(np.float32), (seen + middle).astype(np.float32)
    )
    return cv2.warpPerspective(face, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)


def zoom(face: np.ndarray, factor: float, _sample: Sample) -> np.ndarray:
    """Enlarge the face about the middle: what a tighter box, or below 1 a wider one, cuts out."""
    return warp(face, factor, factor)


def shift(face: np.ndarray, share: float, sample: Sample) -> np.ndarray:
    """Move the face by this share of its side in a random direction."""
    return displace(face, share, sample.build_generator("shift").uniform(0, 2 * np.pi))


def displace(face: np.ndarray, share: float, angle: float) -> np.ndarray:
    """Move the face by this share of its side; at an angle of 0 to the right, of pi / 2 down."""
    moved = share * face.shape[0] * np.array([np.cos(angle), np.sin(angle)])
    return _move(face, np.column_stack([np.eye(2), moved]))


def _find_middle(face: np.ndarray) -> np.ndarray:
    height, width = face.shape[:2]
    return np.array([(width - 1) / 2, (height - 1) / 2])


def _move(face: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    height, width = face.shape[:2]
    return cv2.warpAffine(face, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)


def blur(face: np.ndarray, sigma: float, _sample: Sample) -> np.ndarray:
    """Blur with a Gaussian."""
    scaled = sigma * face.shape[0] / REFERENCE_SIDE
    return cv2.GaussianBlur(face, (0, 0), scaled, borderType=cv2.BORDER_REPLICATE)


def add_noise(face: np.ndarray, sigma: float, sample: Sample) -> np.ndarray:
    """Add independent Gaussian noise to every pixel and channel."""
    noise = sample.build_generator("noise").standard_normal(face.shape)
    return np.clip(face + sigma * noise, 0, 255).round().astype(np.uint8)


def compress_jpeg(face: np.ndarray, quality: float, _sample: Sample) -> np.ndarray:
    """Code as JPEG, which keeps colour more coarsely than brightness, and read back."""
    kind = cv2.IMREAD_GRAYSCALE if face.ndim == 2 else cv2.IMREAD_COLOR_RGB
    plain = face if face.ndim == 2 else cv2.cvtColor(face, cv2.COLOR_RGB2BGR)
    _, coded = cv2.imencode(".jpg", plain, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    return np.asarray(cv2.imdecode(coded, kind))


def downsample(face: np.ndarray, pixels: float) -> np.ndarray:
    """Reduce to so many pixels a side and enlarge again."""
    small = cv2.resize(face, (int(pixels), int(pixels)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, face.shape[1::-1], interpolation=cv2.INTER_LINEAR)


FAMILIES = ("lighting", "orientation", "framing", "quality", "occlusion")
LIGHTING, ORIENTATION, FRAMING, QUALITY, OCCLUSION = FAMILIES

CORRUPTIONS: dict[str, Corruption] = {
    "overexposed": Corruption(LIGHTING, "stops", (0.5, 1.0, 1.5, 2.0, 2.5), expose),
    "underexposed": Corruption(LIGHTING, "stops", (-1.0, -2.0, -3.0, -4.0, -5.0), expose),
    "low contrast": Corruption(LIGHTING, "factor", (0.7, 0.5, 0.35, 0.2, 0.1), scale_contrast),
    "high contrast": Corruption(LIGHTING, "factor", (1.25, 1.6, 2.0, 2.5, 3.0), scale_contrast),
    "gamma": Corruption(LIGHTING, "exponent", (1.3, 1.7, 2.2, 2.8, 3.5), apply_gamma),
    "side light": Corruption(LIGHTING, "slope", (0.2, 0.4, 0.6, 0.8, 1.0), light_side),
    "rotation": Corruption(ORIENTATION, "degrees", (5, 10, 20, 30, 45), rotate),
    "yaw": Corruption(ORIENTATION, "degrees", (10, 20, 30, 40, 50), partial(turn, axis="yaw")),
    "pitch": Corruption(ORIENTATION, "degrees", (10, 20, 30, 40, 50), partial(turn, axis="pitch")),
    "tighter": Corruption(FRAMING, "zoom", (1.05, 1.1, 1.2, 1.3, 1.45), zoom),
    "wider": Corruption(FRAMING, "zoom", (0.95, 0.9, 0.8, 0.7, 0.6), zoom),
    "shift": Corruption(FRAMING, "share of the side", (0.03, 0.06, 0.1, 0.15, 0.2), shift),
    "blur": Corruption(QUALITY, "sigma, pixels of 48", (0.5, 1.0, 1.5, 2.0, 3.0), blur),
    "noise": Corruption(QUALITY, "sigma, grey levels", (5, 10, 20, 30, 45), add_noise),
    "JPEG": Corruption(QUALITY, "quality", (50, 30, 20, 10, 5), compress_jpeg),
    "low resolution": Corruption(
        QUALITY, "pixels a side", (32, 24, 16, 12, 8), lambda face, pixels, _: downsample(face, pixels)
    ),
    "glasses": Corruption(
        OCCLUSION, "rim, share of eye distance", (0.04, 0.07, 0.1, 0.15, 0.2), occlusions.wear_glasses
    ),
    "sunglasses": Corruption(OCCLUSION, "opacity", (0.2, 0.4, 0.6, 0.8, 1.0), occlusions.wear_sunglasses),
    "mask": Corruption(
        OCCLUSION, "share, chin to nose bridge", (0.2, 0.4, 0.6, 0.8, 1.0), occlusions.wear_mask
    ),
    "hand": Corruption(
        OCCLUSION, "share of the width", (0.15, 0.3, 0.45, 0.6, 0.75), occlusions.occlude_hand
    ),
    "block": Corruption(OCCLUSION, "share of the side", (0.1, 0.2, 0.3, 0.4, 0.5), occlusions.cutout),
}
"""At levels of which a person reads the first with ease and the last with trouble."""

CLEAN = "clean"

CONDITIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tighter": lambda face: warp(face, 1.25, 1.25),
    "wider": lambda face: warp(face, 0.8, 0.8),
    "narrower": lambda face: warp(face, 0.85, 1.0),
    "shifted": lambda face: displace(face, 0.1 * np.sqrt(2), np.pi / 4),
    "darker": lambda face: relight(face, 0.4),
    "flatter": lambda face: relight(face, 0.5, offset=80),  # lifts the shadows, as haze or stray light does
    "side light": lambda face: relight(face, 1.0, slope=0.5),
    "coarser": lambda face: downsample(face, round(0.5 * face.shape[1])),
}
"""Fixed changes, the same for all faces, under which every network is scored beside `CLEAN`: a detector's
other margin, a lens, a lamp or a distance, at levels that a person still reads."""
