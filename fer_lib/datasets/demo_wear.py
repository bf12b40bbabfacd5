"""Things worn on the face: glasses, sunglasses and a medical mask."""

import cv2
import numpy as np

from fer_lib.datasets.demo_anatomy import Anatomy
from fer_lib.datasets.demo_canvas import FaceMap, spline
from fer_lib.datasets.demo_factors import FaceFactors
from fer_lib.datasets.demo_surface import Camera, encode_colour

_FRAME_COLOURS = tuple(encode_colour(c) for c in "1a1718 4a2e20 6e6e74 3d1f2b 24344f".split())
_MASK_COLOURS = (encode_colour("a9cfe0"), encode_colour("f0f1f0"))
_LENS_FRONT = 0.93  # distance of the lenses from the head's axis
_LENS_HALF = (0.245, 0.17)
_FRAME_WIDTH = 0.026


def draw_glasses(canvas: np.ndarray, factors: FaceFactors, camera: Camera, anatomy: Anatomy) -> None:
    """Draw spectacles in place, as a plane before the eyes with arms that run to the ears."""
    identity = factors.identity
    frame = _FRAME_COLOURS[identity.texture_seed % len(_FRAME_COLOURS)] * factors.light_strength
    squareness = 0.45 + 0.55 * (identity.texture_seed // 7 % 2)
    thickness = max(1, round(_FRAME_WIDTH * camera.ppu))
    lines = []
    lenses = []
    for sign, points, _ in anatomy.get_sides():
        centre = (points["eye_inner"] + points["eye_outer"]) / 2 + (sign * 0.015, 0.01)
        lenses.append(_project_lens(camera, centre, squareness))
        hinge = np.array((centre[0] + sign * _LENS_HALF[0], centre[1] - 0.07, _LENS_FRONT - 0.03))
        ear = np.array((sign * 0.82, -0.06, -0.05))
        lines.append(camera.project(np.stack([hinge, (hinge + ear) / 2 + (sign * 0.05, 0, 0), ear])))
        lines.append(camera.project(_bridge(centre, sign)))
    if factors.glasses == "sunglasses":
        _blend(canvas, lenses, None, np.float32(0.012), 0.93)
    else:
        _blend(canvas, lenses, None, np.float32(0.9), 0.06)
    is_towards = lambda i: True  # noqa: E731
    visible = [line for i, line in enumerate(lines) if is_towards(i)]
    _blend(canvas, [*lenses], thickness, frame, 0.95, closed=True)
    _blend(canvas, visible, thickness, frame, 0.95, closed=False)


def _project_lens(camera: Camera, centre: np.ndarray, squareness: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    c, s = np.cos(angle), np.sin(angle)
    power = squareness
    x = centre[0] + _LENS_HALF[0] * np.sign(c) * np.abs(c) ** power
    y = centre[1] + _LENS_HALF[1] * np.sign(s) * np.abs(s) ** power
    return camera.project(np.stack([x, y, np.full_like(x, _LENS_FRONT)], axis=1))


def _bridge(centre: np.ndarray, sign: float) -> np.ndarray:
    start = (centre[0] - sign * _LENS_HALF[0], centre[1] - 0.02)
    arch = spline([start, (start[0] / 2, centre[1] - 0.05), (0, centre[1] - 0.06)], 7)
    return np.column_stack([arch, np.full(7, _LENS_FRONT + 0.01)])


def _blend(canvas, shapes, thickness, colour, opacity, closed=True) -> None:
    mask = np.zeros(canvas.shape[:2], np.uint8)
    fixed = [np.round(points * 16).astype(np.int32) for points in shapes]
    if thickness is None:
        cv2.fillPoly(mask, fixed, 255, cv2.LINE_AA, 4)
    else:
        cv2.polylines(mask, fixed, closed, 255, thickness, cv2.LINE_AA, 4)
    canvas += (colour - canvas) * (mask.astype(np.float32) * (opacity / 255))[..., None]


def paint_medical_mask(face: FaceMap, anatomy: Anatomy) -> None:
    """Paint a pleated mask from the nose to below the chin, over whatever the face shows there."""
    chin = anatomy.get_middle("chin")[1]
    edge = np.array([(0, 0.08), (0.2, 0.16), (0.5, 0.3), (0.72, 0.36), (0.66, 0.7), (0.4, chin), (0, chin + 0.25)])
    outline = np.concatenate([edge, (edge * (-1, 1))[::-1]])
    stamp = face.fill([outline], soft=0.006)
    face.paint(stamp, _MASK_COLOURS[0])
    face.occlusion[stamp.window] += (1 - face.occlusion[stamp.window]) * stamp.coverage
    face.polish(stamp, 0.0)
    smooth = cv2.GaussianBlur(face.height, (0, 0), 0.08 * face.ppu)
    face.height[stamp.window] += (smooth - face.height)[stamp.window] * stamp.coverage
    for y in (0.45, 0.58, 0.71):
        pleat = face.stroke([spline([(-0.62, y - 0.03), (0, y + 0.02), (0.62, y - 0.03)])], 0.014, soft=0.01)
        face.lift(pleat, -0.012)
        face.darken(pleat, 0.25)
