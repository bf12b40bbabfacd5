"""Hold the map a face is painted on: colour, relief and occlusion over the front of an unposed head."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from demo_faces import exact

MAP_ORIGIN = (-1.0, -1.2)
MAP_EXTENT = (2.0, 2.6)
_FIXED_POINT_BITS = 4
_ONE = 2**_FIXED_POINT_BITS
_ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


def spline(points: Sequence, n: int = 25) -> np.ndarray:
    """Return the parabola (n, 2) through a start, a middle and an end."""
    return exact.turn(_weigh_parabola(n), np.asarray(points, float).T)


@lru_cache
def _weigh_parabola(n: int) -> np.ndarray:
    t = np.linspace(0, 1, n)
    return np.stack([(1 - t) * (1 - 2 * t), 4 * t * (1 - t), t * (2 * t - 1)], axis=1)


def shift(points: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """Return points (2,) or (n, 2) moved by (dx, dy)."""
    return points + np.array((dx, dy))


def ellipse(centre: Sequence | np.ndarray, rx: float, ry: float, tilt: float = 0.0) -> np.ndarray:
    """Return an ellipse as a polygon (24, 2); tilt in degrees, clockwise."""
    points = _CIRCLE * (rx, ry)
    if tilt:
        c, s = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
        points = exact.turn(points, np.array([[c, -s], [s, c]]))
    return shift(points, *centre)


@lru_cache(maxsize=4)
def build_noise(kind: str) -> np.ndarray:
    """Return a fixed noise texture, float32 (256, 256), mean 0 and standard deviation 1, tileable.

    Kinds: `skin` (blotches), `strands` (long in y), `curls` (round blobs), `pores` (white).
    """
    sigmas = {"skin": (6, 6), "strands": (26, 1.0), "curls": (3.2, 3.2), "pores": (0.8, 0.8)}
    white = np.random.default_rng(sum(kind.encode())).standard_normal((256, 256))
    sigma_y, sigma_x = sigmas[kind]
    tiled = np.tile(white, (3, 3))
    noise = cv2.GaussianBlur(tiled, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y)[256:512, 256:512]
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


def sample_noise(kind: str, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return noise at texture pixels (any real number, wraps around), float32, shape of `columns`."""
    return exact.resample(build_noise(kind), columns, rows, cv2.BORDER_WRAP)


@lru_cache(maxsize=16)
def build_noise_field(
    kind: str, shape: tuple[int, int], columns_per_pixel: float, rows_per_pixel: float
) -> np.ndarray:
    """Return noise over a map, float32 `shape`, at a given number of texture pixels per map pixel."""
    rows, columns = np.indices(shape, np.float32)
    return sample_noise(kind, columns * columns_per_pixel, rows * rows_per_pixel)


@dataclass(frozen=True)
class Stamp:
    """A shape to paint with: a window (rows, columns) of the map and the coverage 0..1 within it, float32."""

    window: tuple[slice, slice]
    coverage: np.ndarray


class FaceMap:
    """Layers over the front of the head, `ppu` pixels per head unit; all float32.

    albedo: linear RGB (h, w, 3).   height: along z in head units (h, w).
    occlusion: 1 open .. 0 dark (h, w).   gloss: strength of the highlight (h, w).
    skin: linear RGB (3,) before anything is painted.
    Shapes are given as polygons (n, 2) in head coordinates.
    """

    def __init__(self, ppu: float, skin: np.ndarray, gloss: float):
        self.ppu = ppu
        self.skin = skin
        width, height = (round(extent * ppu) for extent in MAP_EXTENT)
        self.shape = (height, width)
        self.albedo = np.empty((height, width, 3), np.float32)
        self.albedo[:] = skin
        self.height = np.zeros(self.shape, np.float32)
        self.occlusion = np.ones(self.shape, np.float32)
        self.gloss = np.full(self.shape, gloss, np.float32)
        # In double precision, for `exp` in single precision differs between makes of CPU.
        self.x = (np.arange(width) + 0.5) / ppu + MAP_ORIGIN[0]
        self.y = (np.arange(height) + 0.5) / ppu + MAP_ORIGIN[1]

    def make_bump(self, x: float, y: float, sx: float, sy: float) -> np.ndarray:
        """Return a Gaussian of height 1, (h, w)."""
        along_x = np.exp(-0.5 * ((self.x - x) / sx) ** 2)
        along_y = np.exp(-0.5 * ((self.y - y) / sy) ** 2)
        return np.outer(along_y.astype(np.float32), along_x.astype(np.float32))

    def fill(self, polygons: list[np.ndarray], soft: float = 0.0, within: Stamp | None = None) -> Stamp:
        """Return the stamp of filled polygons, blurred by `soft` head units and clipped to `within`."""
        window, mask, local = self._open_window(polygons, 3 * soft, within)
        cv2.fillPoly(mask, local, 255, cv2.LINE_AA, _FIXED_POINT_BITS)
        return self._finish(window, mask, soft, within)

    def stroke(
        self, lines: list[np.ndarray], width: float, soft: float = 0.0, within: Stamp | None = None
    ) -> Stamp:
        """Return the stamp of open lines of a width in head units, blurred and clipped as `fill` does."""
        window, mask, local = self._open_window(lines, 3 * soft + width, within)
        thickness = max(1, round(width * self.ppu))
        cv2.polylines(mask, local, False, 255, thickness, cv2.LINE_AA, _FIXED_POINT_BITS)
        return self._finish(window, mask, soft, within)

    def paint(self, stamp: Stamp, colour: np.ndarray | np.floating, opacity: float = 1.0) -> None:
        """Blend a linear colour, (3,) or (h, w, 3) of the stamp's window, over the albedo."""
        area = self.albedo[stamp.window]
        area += (colour - area) * (stamp.coverage * opacity)[..., None]

    def darken(self, stamp: Stamp, amount: float) -> None:
        """Take away up to `amount` (0..1) of the light that reaches the surface."""
        self.occlusion[stamp.window] *= 1 - amount * stamp.coverage

    def lift(self, stamp: Stamp, height: float) -> None:
        """Raise the relief by up to `height` head units; negative carves."""
        self.height[stamp.window] += height * stamp.coverage

    def polish(self, stamp: Stamp, gloss: float) -> None:
        """Set the gloss under the stamp."""
        area = self.gloss[stamp.window]
        area += (gloss - area) * stamp.coverage

    def _open_window(
        self, polygons: list[np.ndarray], reach: float, within: Stamp | None
    ) -> tuple[tuple[slice, slice], np.ndarray, list[np.ndarray]]:
        """Return a window around the polygons, an empty mask, and the polygons in its fixed-point pixels."""
        fixed = [exact.fix((p - MAP_ORIGIN) * self.ppu - 0.5, _FIXED_POINT_BITS) for p in polygons]
        if within is None:
            points = fixed[0] if len(fixed) == 1 else np.concatenate(fixed)
            pad = int(reach * self.ppu) + 2
            height, width = self.shape
            x, y, w, h = cv2.boundingRect(points)
            x0, x1 = max(x // _ONE - pad, 0), min((x + w) // _ONE + pad, width)
            y0, y1 = max(y // _ONE - pad, 0), min((y + h) // _ONE + pad, height)
            window = (slice(min(y0, height - 1), max(y1, 1)), slice(min(x0, width - 1), max(x1, 1)))
        else:
            window = within.window
        rows, columns = window
        mask = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
        origin = np.array((columns.start, rows.start), np.int32) * _ONE
        return window, mask, [p - origin for p in fixed]

    def _finish(
        self, window: tuple[slice, slice], mask: np.ndarray, soft: float, within: Stamp | None
    ) -> Stamp:
        if soft * self.ppu > 0.3:
            mask = cv2.GaussianBlur(mask, (0, 0), soft * self.ppu)
        coverage = mask.astype(np.float32) * np.float32(1 / 255)
        return Stamp(window, coverage if within is None else coverage * within.coverage)
