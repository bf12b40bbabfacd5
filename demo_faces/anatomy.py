"""Place the landmarks of a face: the average ones, moved by identity and action units.

Head coordinates: x to the image's right, y down, z towards the viewer; the chin lies at y = 1, the crown at
y = -1.12, and the widest part of the face is 1.5 across. Landmarks are given for one side with x outwards.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from demo_faces.factors import ACTION_UNITS, PROTOTYPES, Identity

LANDMARKS: dict[str, tuple[float, float]] = {
    "brow_inner": (0.145, -0.275),
    "brow_mid": (0.36, -0.36),
    "brow_outer": (0.57, -0.265),
    "eye_inner": (0.165, -0.035),
    "eye_outer": (0.50, -0.065),
    "lid_upper": (0.33, -0.165),
    "lid_lower": (0.33, 0.03),
    "nose_tip": (0.0, 0.335),
    "ala": (0.155, 0.365),
    "cheek": (0.43, 0.26),
    "mouth_corner": (0.275, 0.605),
    "lip_top": (0.0, 0.535),
    "seam_upper": (0.0, 0.61),
    "seam_lower": (0.0, 0.61),
    "lip_bottom": (0.0, 0.705),
    "chin": (0.0, 1.0),
}

# Displacement of landmarks at full intensity, (outwards, down), after the FACS descriptions and somewhat
# exaggerated, as at 48 px a life-sized movement is less than a pixel.
DISPLACEMENTS: dict[str, dict[str, tuple[float, float]]] = {
    "au01": {"brow_inner": (0.0, -0.17), "brow_mid": (0.0, -0.06)},
    "au02": {"brow_outer": (0.0, -0.13), "brow_mid": (0.0, -0.11), "brow_inner": (0.0, -0.03)},
    "au04": {
        "brow_inner": (-0.05, 0.12),
        "brow_mid": (-0.03, 0.075),
        "brow_outer": (-0.01, -0.005),
        "lid_upper": (0.0, 0.015),
    },
    "au05": {"lid_upper": (0.0, -0.06)},
    "au06": {"lid_lower": (0.0, -0.045), "lid_upper": (0.0, 0.02), "cheek": (0.0, -0.06)},
    "au07": {"lid_lower": (0.0, -0.035), "lid_upper": (0.0, 0.02)},
    "au09": {
        "brow_inner": (-0.02, 0.08),
        "brow_mid": (0.0, 0.05),
        "lid_lower": (0.0, -0.035),
        "lid_upper": (0.0, 0.045),
        "nose_tip": (0.0, -0.03),
        "ala": (0.03, -0.06),
        "cheek": (0.0, -0.05),
        "lip_top": (0.0, -0.07),
        "seam_upper": (0.0, -0.045),
    },
    "au12": {
        "mouth_corner": (0.11, -0.115),
        "cheek": (0.02, -0.03),
        "lip_top": (0.0, 0.005),
        "lip_bottom": (0.0, 0.01),
        "seam_upper": (0.0, 0.015),
        "seam_lower": (0.0, 0.015),
    },
    "au15": {"mouth_corner": (0.0, 0.10), "seam_upper": (0.0, -0.015), "seam_lower": (0.0, -0.015)},
    "au16": {"lip_bottom": (0.0, 0.06), "seam_lower": (0.0, 0.075)},
    "au17": {
        "lip_top": (0.0, -0.02),
        "seam_upper": (0.0, -0.035),
        "seam_lower": (0.0, -0.035),
        "lip_bottom": (0.0, -0.045),
        "chin": (0.0, -0.03),
    },
    "au20": {"mouth_corner": (0.12, 0.03), "lip_bottom": (0.0, -0.01), "lip_top": (0.0, 0.01)},
    "au23": {"mouth_corner": (-0.03, 0.0), "lip_top": (0.0, 0.04), "lip_bottom": (0.0, -0.05)},
    "au25": {
        "lip_top": (0.0, -0.02),
        "seam_upper": (0.0, -0.035),
        "seam_lower": (0.0, 0.06),
        "lip_bottom": (0.0, 0.055),
    },
    "au26": {
        "mouth_corner": (-0.035, 0.06),
        "seam_lower": (0.0, 0.23),
        "lip_bottom": (0.0, 0.225),
        "chin": (0.0, 0.17),
    },
}

# In AU 1+4 the inner frontalis wins over the corrugator: the brows meet but do not sink. The share of AU 4's
# lowering that a full AU 1 cancels:
_AU01_CANCELS_AU04 = 0.75

# Half of the head's outline seen from the front, crown to chin: (half width, y).
_OUTLINE = np.array(
    [
        (0.0, -1.12),
        (0.32, -1.055),
        (0.55, -0.90),
        (0.70, -0.62),
        (0.75, -0.30),
        (0.73, 0.03),
        (0.68, 0.32),
        (0.585, 0.60),
        (0.42, 0.82),
        (0.26, 0.935),
        (0.13, 0.98),
        (0.0, 1.0),
    ]
)
# The same from the side: (half depth, y).
_DEPTH = np.array(
    [
        (0.0, -1.12),
        (0.40, -1.04),
        (0.66, -0.86),
        (0.82, -0.55),
        (0.86, -0.2),
        (0.84, 0.2),
        (0.81, 0.5),
        (0.77, 0.75),
        (0.64, 0.89),
        (0.45, 0.955),
        (0.22, 0.989),
        (0.0, 1.0),
    ]
)
_JAW_STARTS, _JAW_ENDS = 0.1, 0.8

# Areas an emotion's units deform, as ellipses (x, y, half width, half height) mirrored where x is not 0.
REGIONS: dict[str, tuple[float, float, float, float]] = {
    "forehead": (0.0, -0.52, 0.48, 0.2),
    "brows": (0.34, -0.34, 0.36, 0.19),
    "eyes": (0.34, -0.07, 0.27, 0.19),
    "nose": (0.0, 0.2, 0.26, 0.3),
    "cheeks": (0.45, 0.24, 0.22, 0.24),
    "mouth": (0.0, 0.62, 0.46, 0.25),
    "chin": (0.0, 0.88, 0.42, 0.25),
}
_REGIONS_OF_AU: dict[str, tuple[str, ...]] = {
    "au01": ("forehead", "brows"),
    "au02": ("forehead", "brows"),
    "au04": ("brows",),
    "au05": ("eyes",),
    "au06": ("eyes", "cheeks"),
    "au07": ("eyes",),
    "au09": ("brows", "eyes", "nose", "mouth"),
    "au12": ("cheeks", "mouth"),
    "au15": ("mouth",),
    "au16": ("mouth", "chin"),
    "au20": ("mouth",),
    "au23": ("mouth",),
    "au26": ("mouth", "chin"),
}
_NEUTRAL_REGIONS = ("brows", "eyes", "mouth")


@dataclass(frozen=True)
class Anatomy:
    """One face before it is painted.

    left, right: landmark name -> float64 (2,) in head coordinates, x already signed.
    aus_left, aus_right, aus: intensity 0..1 per unit on each side and their mean.
    outline, depth: float64 (n, 2), half width and half depth against y, crown to chin.
    """

    left: dict[str, np.ndarray]
    right: dict[str, np.ndarray]
    aus_left: dict[str, float]
    aus_right: dict[str, float]
    aus: dict[str, float]
    outline: np.ndarray
    depth: np.ndarray

    def get_middle(self, name: str) -> np.ndarray:
        """Return a landmark's mean over both sides, float64 (2,)."""
        return (self.left[name] + self.right[name]) / 2

    def get_sides(self) -> tuple[tuple[float, dict[str, np.ndarray], dict[str, float]], ...]:
        """Return (sign of x, landmarks, intensities) of the left and of the right side."""
        return (-1.0, self.left, self.aus_left), (1.0, self.right, self.aus_right)


def build_anatomy(identity: Identity, aus: Mapping[str, float], asymmetry: float) -> Anatomy:
    """Return landmarks and outline of one identity showing these action units."""
    mean = {au: float(np.clip(aus.get(au, 0.0), 0, 1)) for au in ACTION_UNITS}
    left = {au: min(1.0, a * (1 - asymmetry)) for au, a in mean.items()}
    right = {au: min(1.0, a * (1 + asymmetry)) for au, a in mean.items()}
    chin_drop = identity.chin_length + sum(
        mean[au] * moves["chin"][1] for au, moves in DISPLACEMENTS.items() if "chin" in moves
    )
    return Anatomy(
        left={n: p * (-1, 1) for n, p in _place_landmarks(identity, left).items()},
        right=_place_landmarks(identity, right),
        aus_left=left,
        aus_right=right,
        aus=mean,
        outline=_shape_outline(identity, chin_drop),
        depth=_lower_jaw(_DEPTH, chin_drop),
    )


def get_active_regions(emotion: str) -> tuple[str, ...]:
    """Return the names of the regions that the emotion's prototype deforms; brows, eyes, mouth if neutral."""
    active = {region for au in PROTOTYPES[emotion] for region in _REGIONS_OF_AU[au]}
    return tuple(name for name in REGIONS if name in (active or _NEUTRAL_REGIONS))


def _place_landmarks(identity: Identity, aus: Mapping[str, float]) -> dict[str, np.ndarray]:
    points = _shape_landmarks(identity)
    for au, moves in DISPLACEMENTS.items():
        for name, move in moves.items():
            dx, dy = move
            if au == "au04":
                dy *= 1 - _AU01_CANCELS_AU04 * aus["au01"]
            points[name] = points[name] + aus[au] * np.array((dx, dy))
    # Lips press together; they do not pass through each other.
    points["seam_lower"][1] = max(points["seam_lower"][1], points["seam_upper"][1])
    points["lip_top"][1] = min(points["lip_top"][1], points["seam_upper"][1] - 0.02)
    points["lip_bottom"][1] = max(points["lip_bottom"][1], points["seam_lower"][1] + 0.025)
    points["lid_lower"][1] = max(points["lid_lower"][1], points["lid_upper"][1] + 0.045)
    return points


def _shape_landmarks(identity: Identity) -> dict[str, np.ndarray]:
    """Return the landmarks of the identity at rest."""
    p = {name: np.array(point) for name, point in LANDMARKS.items()}
    eye = (p["eye_inner"] + p["eye_outer"]) / 2
    for name in ("eye_inner", "eye_outer", "lid_upper", "lid_lower"):
        p[name] = eye * (identity.eye_spacing_scale, 1) + (p[name] - eye) * identity.eye_size_scale
    p["eye_outer"][1] -= identity.eye_tilt
    for name in ("brow_inner", "brow_mid", "brow_outer"):
        p[name] = p[name] * (identity.eye_spacing_scale, 1) + (0, identity.brow_height)
    p["ala"][0] *= identity.nose_width_scale
    for name in ("ala", "nose_tip"):
        p[name][1] *= identity.nose_length_scale
    p["mouth_corner"][0] *= identity.mouth_width_scale
    for name in ("lip_top", "lip_bottom"):
        seam = LANDMARKS["seam_upper"][1]
        p[name][1] = seam + (p[name][1] - seam) * identity.lip_fullness_scale
    return p


def _shape_outline(identity: Identity, chin_drop: float) -> np.ndarray:
    outline = _OUTLINE.copy()
    jaw = np.clip((outline[:, 1] - _JAW_STARTS) / (_JAW_ENDS - _JAW_STARTS), 0, 1)
    outline[:, 0] *= identity.face_width_scale * (1 + jaw * (identity.jaw_width_scale - 1))
    return _lower_jaw(outline, chin_drop)


def _lower_jaw(curve: np.ndarray, drop: float) -> np.ndarray:
    """Stretch the part below the cheekbones so that the chin ends `drop` lower."""
    lowered = curve.copy()
    y = lowered[:, 1]
    lowered[:, 1] = y + drop * np.clip((y - _JAW_STARTS) / (1 - _JAW_STARTS), 0, 1)
    return lowered
