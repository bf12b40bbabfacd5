"""Draw images and clips with faces at known places, for the app's examples, tests and benchmarks."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from demo_faces.factors import EMOTIONS, FaceFactors, build_prototype, sample_identity
from demo_faces.scene import draw_face

FACE_SHARE = 0.56
"""Width of the face as a share of the side of its drawn portrait."""

FACE_BOX = (0.22, 0.19, FACE_SHARE, 0.70)
"""Left, top, width and height of the face in its portrait, as shares of the side, as a detector sees it."""

N_STEPS = 6
"""Drawings from a neutral face to the full expression; a clip shows the nearest one."""


@dataclass(frozen=True)
class PlacedFace:
    """A face drawn into an image: box (left, top, width, height) in pixels, its emotion, and whose it is."""

    box: tuple[float, float, float, float]
    emotion: str
    person: int


def draw_scene(
    n_faces: int = 1, width: int = 640, height: int = 480, face_width: float | None = None, seed: int = 0
) -> tuple[np.ndarray, list[PlacedFace]]:
    """Draw people side by side; the same arguments give the same bytes.

    Parameters
    ----------
    n_faces
        How many people.
    width, height
        Of the image in pixels.
    face_width
        In pixels; None: as large as there is room for.
    seed
        Of the people.

    Returns
    -------
    uint8 RGB (height, width, 3)
    list
        Where whose face is.
    """
    side, centres = _lay_out(n_faces, width, height, face_width)
    image = _draw_backdrop(width, height)
    placed = []
    for person, centre in enumerate(centres):
        factors = _choose_factors(seed, person)
        _paste(image, draw_face(factors, max(16, round(side)))[0], centre, side)
        placed.append(_place(centre, side, factors.emotion, person))
    return image, placed


def draw_clip(
    n_frames: int, n_faces: int = 1, width: int = 640, height: int = 480, seed: int = 0
) -> Iterator[np.ndarray]:
    """Yield the frames of `draw_labelled_clip` alone."""
    return (frame for frame, _ in draw_labelled_clip(n_frames, n_faces, width, height, seed))


def draw_labelled_clip(
    n_frames: int, n_faces: int = 1, width: int = 640, height: int = 480, seed: int = 0, hold: int = 45
) -> Iterator[tuple[np.ndarray, list[PlacedFace]]]:
    """Yield frames, uint8 RGB (height, width, 3), and where whose face is; faces drift and change expression.

    Everyone is neutral for `hold` frames, changes to an emotion within five, holds it, changes back, and so
    on; the emotion is called neutral until the expression is more than half there.
    """
    side, centres = _lay_out(n_faces, width, height, None)
    backdrop = _draw_backdrop(width, height)
    people = [_choose_factors(seed, person) for person in range(n_faces)]
    drawings = [_draw_steps(factors, max(16, round(side))) for factors in people]
    for frame in range(n_frames):
        image, placed = backdrop.copy(), []
        for person, (centre, factors) in enumerate(zip(centres, people, strict=True)):
            phase = 2 * np.pi * (frame / 120 + person / max(1, n_faces))
            moved = centre + 0.04 * side * np.array([np.cos(phase), 0.5 * np.sin(2 * phase)])
            cycle, position = divmod(frame, hold)
            step = min(position, N_STEPS - 1) if cycle % 2 else max(0, N_STEPS - 1 - position)
            step = step if cycle else 0
            _paste(image, drawings[person][step], moved, side)
            emotion = factors.emotion if step > N_STEPS // 2 else "neutral"
            placed.append(_place(moved, side, emotion, person))
        yield image, placed


def _choose_factors(seed: int, person: int) -> FaceFactors:
    rng = np.random.default_rng([seed, person])
    identity = sample_identity(seed, 7 * person + int(rng.integers(7)))
    emotion = ("happy", "surprise", "neutral", "angry", "sad", "fear", "disgust")[person % len(EMOTIONS)]
    return FaceFactors(
        identity=identity,
        emotion=emotion,
        aus=build_prototype(emotion),
        yaw=float(rng.uniform(-8, 8)),
        roll=float(rng.uniform(-5, 5)),
        scene_seed=seed + person,
    )


def _draw_steps(factors: FaceFactors, side: int) -> list[np.ndarray]:
    """Return portraits from a neutral face to the full expression."""
    return [
        draw_face(replace(factors, aus=build_prototype(factors.emotion, strength)), side)[0]
        for strength in np.linspace(0, 1, N_STEPS)
    ]


def _lay_out(
    n_faces: int, width: int, height: int, face_width: float | None
) -> tuple[float, list[np.ndarray]]:
    """Return the side of a portrait and the centre of each, on the grid that leaves most room."""
    columns = max(range(1, n_faces + 1), key=lambda n: min(width / n, height / -(-n_faces // n)), default=1)
    rows = max(1, -(-n_faces // columns))
    side = 0.96 * min(width / columns, height / rows) if face_width is None else face_width / FACE_SHARE
    cells = [divmod(person, columns) for person in range(n_faces)]
    return side, [np.array([(c + 0.5) * width / columns, (r + 0.5) * height / rows]) for r, c in cells]


def _draw_backdrop(width: int, height: int) -> np.ndarray:
    """Return a dark slate that lightens towards the top, as behind the tiles of a video call."""
    top, bottom = np.array([62, 68, 78]), np.array([34, 38, 46])
    fade = np.linspace(0, 1, height)[:, None, None]
    return np.broadcast_to(top * (1 - fade) + bottom * fade, (height, width, 3)).round().astype(np.uint8)


def _paste(image: np.ndarray, portrait: np.ndarray, centre: np.ndarray, side: float) -> None:
    """Put a portrait into the image, in place, at a position between pixels."""
    height, width = image.shape[:2]
    scale = side / portrait.shape[0]
    matrix = np.array([[scale, 0, centre[0] - side / 2], [0, scale, centre[1] - side / 2]])
    low = np.clip(np.floor(centre - side / 2), 0, [width, height]).astype(int)
    high = np.clip(np.ceil(centre + side / 2), 0, [width, height]).astype(int)
    size = high - low
    if size.min() <= 0:
        return
    matrix[:, 2] -= low
    whole = np.ones(portrait.shape[:2], np.float32)
    alpha = cv2.warpAffine(whole, matrix, size.tolist())[..., None]
    moved = cv2.warpAffine(portrait, matrix, size.tolist(), borderMode=cv2.BORDER_REPLICATE)
    region = image[low[1] : high[1], low[0] : high[0]]
    region[:] = (alpha * moved + (1 - alpha) * region).round().astype(np.uint8)


def _place(centre: np.ndarray, side: float, emotion: str, person: int) -> PlacedFace:
    left, top, width, height = (share * side for share in FACE_BOX)
    corner = centre - side / 2
    return PlacedFace((float(corner[0] + left), float(corner[1] + top), width, height), emotion, person)
