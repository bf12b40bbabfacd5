"""Things worn on the face: glasses, sunglasses and a medical mask."""

import cv2
import numpy as np

from demo_faces.anatomy import Anatomy
from demo_faces.canvas import FaceMap, shift, spline
from demo_faces.factors import FaceFactors
from demo_faces.rendering import Camera, blend, encode_colour, encode_palette, rasterise

_FRAME_COLOURS = encode_palette("1a1718 4a2e20 6e6e74 3d1f2b 24344f")
_MASK_COLOUR = encode_colour("a9cfe0")
_LENSES = {"glasses": (0.9, 0.07), "sunglasses": (0.012, 0.94)}  # grey level and opacity of the glass
_LENS_FRONT = 0.97  # distance of the bridge from the head's axis
_LENS_CURVE = 0.65
_LENS_HALF = (0.255, 0.19)
_LENS_EXPONENTS = (0.5, 1.0)
_ARM_HIDDEN = 0.1  # sine of the yaw from which the far arm is behind the head
_FRAME_WIDTH = 0.026


def draw_glasses(canvas: np.ndarray, factors: FaceFactors, camera: Camera, anatomy: Anatomy) -> None:
    """Draw spectacles before the eyes, with the arms that the head does not hide."""
    identity = factors.identity
    frame = _FRAME_COLOURS[identity.texture_seed % len(_FRAME_COLOURS)]
    exponent = _LENS_EXPONENTS[identity.texture_seed // 7 % len(_LENS_EXPONENTS)]
    thickness = max(1, round(_FRAME_WIDTH * camera.ppu))
    lenses, lines = [], []
    for sign, points, _ in anatomy.get_sides():
        centre = (points["eye_inner"] + points["eye_outer"]) / 2 + (sign * 0.015, 0.02)
        lenses.append(_trace_lens(centre, exponent))
        lines.append(_trace_bridge(centre, sign))
        if sign * camera.rotation[0, 2] < _ARM_HIDDEN:
            lines.append(_trace_arm(centre, sign))
    shape = canvas.shape[:2]
    lenses = [camera.project(lens) for lens in lenses]
    colour, opacity = _LENSES[factors.glasses]
    blend(canvas, np.float32(colour), rasterise(shape, lenses) * np.float32(opacity))
    blend(canvas, frame, rasterise(shape, lenses, thickness))
    blend(canvas, frame, rasterise(shape, [camera.project(line) for line in lines], thickness, closed=False))


def _wrap_around(points: np.ndarray) -> np.ndarray:
    """Lift front-view points (n, 2) onto the curved plane of the spectacles, (n, 3)."""
    return np.column_stack([points, _LENS_FRONT - _LENS_CURVE * points[:, 0] ** 2])


def _trace_lens(centre: np.ndarray, exponent: float) -> np.ndarray:
    """Return a superellipse, (40, 3); a low exponent is boxy, 1 an ellipse."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return _wrap_around(centre + _LENS_HALF * np.sign(unit) * np.abs(unit) ** exponent)


def _trace_bridge(centre: np.ndarray, sign: float) -> np.ndarray:
    start = centre - (sign * _LENS_HALF[0], 0.04)
    return _wrap_around(spline([start, (start[0] / 2, centre[1] - 0.065), (0, centre[1] - 0.075)], 7))


def _trace_arm(centre: np.ndarray, sign: float) -> np.ndarray:
    hinge = _wrap_around((shift(centre, sign * _LENS_HALF[0], -0.06))[None])[0]
    ear = np.array((sign * 0.78, -0.08, -0.05))
    return np.stack([hinge, (hinge + ear) / 2 + (sign * 0.05, 0, 0), ear])


def paint_medical_mask(face: FaceMap, anatomy: Anatomy) -> None:
    """Paint a pleated mask from the nose to below the chin, over whatever the face shows there."""
    chin = anatomy.get_middle("chin")[1]
    edge = np.array(
        [(0, 0.08), (0.2, 0.16), (0.5, 0.3), (0.72, 0.36), (0.66, 0.7), (0.4, chin), (0, chin + 0.25)]
    )
    outline = np.concatenate([edge, (edge * (-1, 1))[::-1]])
    stamp = face.fill([outline], soft=0.006)
    face.paint(stamp, _MASK_COLOUR)
    face.occlusion[stamp.window] += (1 - face.occlusion[stamp.window]) * stamp.coverage
    face.polish(stamp, 0.0)
    smooth = cv2.GaussianBlur(face.height, (0, 0), 0.08 * face.ppu)
    face.height[stamp.window] += (smooth - face.height)[stamp.window] * stamp.coverage
    for y in (0.45, 0.58, 0.71):
        pleat = face.stroke([spline([(-0.62, y - 0.03), (0, y + 0.02), (0.62, y - 0.03)])], 0.014, soft=0.01)
        face.lift(pleat, -0.012)
        face.darken(pleat, 0.25)
