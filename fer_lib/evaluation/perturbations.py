"""Faces under another light, turned, cut out otherwise, blurred or covered, in five severities.

Every perturbation is a function of one face, a level in a unit, and what `Sample` holds of that face; nothing
is shared between faces, so none can leak. Severity 0 is the face itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from zlib import crc32

import cv2
import numpy as np

from fer_lib.evaluation import occlusions
from fer_lib.evaluation.conditions import frame, relight

SEVERITIES = range(6)
"""0 is the face as it is."""

REFERENCE_SIDE = 48
"""Blur and resolution are given for a face of so many pixels, that of FER2013, whatever the store's size."""


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


@dataclass(frozen=True)
class Perturbation:
    """What is done to a face: its family, the unit of its five levels, and the function."""

    family: str
    unit: str
    levels: tuple[float, float, float, float, float]
    apply: Callable[[np.ndarray, float, Sample], np.ndarray]


def perturb(face: np.ndarray, name: str, severity: int, sample: Sample) -> np.ndarray:
    """Return the face, uint8 of the same shape, under a perturbation of `PERTURBATIONS`.

    severity: 0 (unchanged) to 5.
    """
    if severity == 0:
        return face.copy()
    chosen = PERTURBATIONS[name]
    return chosen.apply(face, chosen.levels[severity - 1], sample)


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
    sign = sample.build_generator("side light").choice([-1, 1])
    return relight(face, 1.0, slope=sign * slope)


def rotate(face: np.ndarray, degrees: float, sample: Sample) -> np.ndarray:
    """Turn the face in its plane, clockwise or not at random. What comes in repeats the border."""
    sign = sample.build_generator("rotation").choice([-1, 1])
    height, width = face.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), sign * degrees, 1.0)
    return cv2.warpAffine(face, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)


def turn(face: np.ndarray, degrees: float, sample: Sample, axis: str) -> np.ndarray:
    """Turn the picture about its upright (`yaw`) or level (`pitch`) axis, one way at random.

    A flat face seen by a pinhole camera three sides away: what a turned head hides it cannot show.
    """
    angle = np.radians(degrees) * sample.build_generator(axis).choice([-1, 1])
    side = face.shape[0]
    corners = (np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) - 0.5) * side
    cosine, sine = np.cos(angle), np.sin(angle)
    along = corners[:, 0] if axis == "yaw" else corners[:, 1]
    depth = 3 * side + along * sine
    seen = corners.copy()
    seen[:, 0 if axis == "yaw" else 1] = along * cosine
    seen *= (3 * side / depth)[:, None]
    middle = (side - 1) / 2
    matrix = cv2.getPerspectiveTransform(
        (corners + middle).astype(np.float32), (seen + middle).astype(np.float32)
    )
    return cv2.warpPerspective(face, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)


def zoom(face: np.ndarray, factor: float, _sample: Sample) -> np.ndarray:
    """Enlarge the face about the middle: what a tighter box, or below 1 a wider one, cuts out."""
    return frame(face, factor, factor)


def shift(face: np.ndarray, share: float, sample: Sample) -> np.ndarray:
    """Move the face by this share of its side in a random direction."""
    angle = sample.build_generator("shift").uniform(0, 2 * np.pi)
    height, width = face.shape[:2]
    moved = share * height * np.array([np.cos(angle), np.sin(angle)])
    matrix = np.column_stack([np.eye(2), moved])
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
    return cv2.imdecode(coded, kind)


def lower_resolution(face: np.ndarray, pixels: float, _sample: Sample) -> np.ndarray:
    """Reduce to so many pixels a side and enlarge again."""
    small = cv2.resize(face, (int(pixels), int(pixels)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, face.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def hold_hand(face: np.ndarray, share: float, sample: Sample) -> np.ndarray:
    """Lay a hand over one cheek, at random, and the mouth; see `occlusions.hold_hand`."""
    side = int(sample.build_generator("hand").choice([-1, 1]))
    return occlusions.hold_hand(face, sample.landmarks, share, side)


def put_block(face: np.ndarray, side: float, sample: Sample) -> np.ndarray:
    """Hide a square about a landmark drawn at random; see `occlusions.put_block`."""
    which = int(sample.build_generator("block").integers(len(sample.landmarks)))
    return occlusions.put_block(face, sample.landmarks, side, which)


def _wear(draw: Callable[[np.ndarray, np.ndarray, float], np.ndarray]) -> Callable:
    return lambda face, level, sample: draw(face, sample.landmarks, level)


LIGHTING, ORIENTATION, FRAMING, QUALITY, OCCLUSION = (
    "lighting",
    "orientation",
    "framing",
    "quality",
    "occlusion",
)
FAMILIES = (LIGHTING, ORIENTATION, FRAMING, QUALITY, OCCLUSION)

PERTURBATIONS: dict[str, Perturbation] = {
    "overexposed": Perturbation(LIGHTING, "stops", (0.5, 1.0, 1.5, 2.0, 2.5), expose),
    "underexposed": Perturbation(LIGHTING, "stops", (-1.0, -2.0, -3.0, -4.0, -5.0), expose),
    "low contrast": Perturbation(LIGHTING, "factor", (0.7, 0.5, 0.35, 0.2, 0.1), scale_contrast),
    "high contrast": Perturbation(LIGHTING, "factor", (1.25, 1.6, 2.0, 2.5, 3.0), scale_contrast),
    "gamma": Perturbation(LIGHTING, "exponent", (1.3, 1.7, 2.2, 2.8, 3.5), apply_gamma),
    "side light": Perturbation(LIGHTING, "slope", (0.2, 0.4, 0.6, 0.8, 1.0), light_side),
    "rotation": Perturbation(ORIENTATION, "degrees", (5, 10, 20, 30, 45), rotate),
    "yaw": Perturbation(ORIENTATION, "degrees", (10, 20, 30, 40, 50), partial(turn, axis="yaw")),
    "pitch": Perturbation(ORIENTATION, "degrees", (10, 20, 30, 40, 50), partial(turn, axis="pitch")),
    "tighter": Perturbation(FRAMING, "zoom", (1.05, 1.1, 1.2, 1.3, 1.45), zoom),
    "wider": Perturbation(FRAMING, "zoom", (0.95, 0.9, 0.8, 0.7, 0.6), zoom),
    "shift": Perturbation(FRAMING, "share of the side", (0.03, 0.06, 0.1, 0.15, 0.2), shift),
    "blur": Perturbation(QUALITY, "sigma, pixels of 48", (0.5, 1.0, 1.5, 2.0, 3.0), blur),
    "noise": Perturbation(QUALITY, "sigma, grey levels", (5, 10, 20, 30, 45), add_noise),
    "JPEG": Perturbation(QUALITY, "quality", (50, 30, 20, 10, 5), compress_jpeg),
    "low resolution": Perturbation(QUALITY, "pixels a side", (32, 24, 16, 12, 8), lower_resolution),
    "glasses": Perturbation(
        OCCLUSION, "rim, share of eye distance", (0.04, 0.07, 0.1, 0.15, 0.2), _wear(occlusions.wear_glasses)
    ),
    "sunglasses": Perturbation(
        OCCLUSION, "opacity", (0.2, 0.4, 0.6, 0.8, 1.0), _wear(occlusions.wear_sunglasses)
    ),
    "mask": Perturbation(
        OCCLUSION, "share, chin to nose bridge", (0.2, 0.4, 0.6, 0.8, 1.0), _wear(occlusions.wear_mask)
    ),
    "hand": Perturbation(OCCLUSION, "share of the width", (0.15, 0.3, 0.45, 0.6, 0.75), hold_hand),
    "block": Perturbation(OCCLUSION, "share of the side", (0.1, 0.2, 0.3, 0.4, 0.5), put_block),
}
"""At strengths of which a person reads the first with ease and the last with trouble."""
