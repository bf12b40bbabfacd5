"""The map a face is painted on: colour, relief and occlusion over the front of the head, not yet posed."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

MAP_ORIGIN = (-1.0, -1.2)
MAP_EXTENT = (2.0, 2.6)
_FIXED_POINT_BITS = 4


def spline(points: np.ndarray, n: int = 25) -> np.ndarray:
    """Return a Bézier-like smooth curve (n, 2) through three points: a quadratic through start, mid and end."""
    start, mid, end = np.asarray(points, float)
    control = 2 * mid - (start + end) / 2
    t = np.linspace(0, 1, n)[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end


@lru_cache(maxsize=4)
def build_noise(kind: str) -> np.ndarray:
    """Return a fixed noise texture, float32 (256, 256), mean 0 and standard deviation 1, tileable.

    Kinds: `skin` (blotches), `strands` (long in y), `curls` (round blobs), `pores` (white).
    """
    sigmas = {"skin": (6, 6), "strands": (26, 1.0), "curls": (3.2, 3.2), "pores": (0.8, 0.8)}
    white = np.random.default_rng(sum(kind.encode())).standard_normal((256, 256)).astype(np.float32)
    sigma_y, sigma_x = sigmas[kind]
    tiled = np.tile(white, (3, 3))
    noise = cv2.GaussianBlur(tiled, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y)[256:512, 256:512]
    return np.ascontiguousarray((noise - noise.mean()) / noise.std())


def sample_noise(kind: str, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return noise at texture pixels (any real number, wraps around), float32, shape of `columns`."""
    return cv2.remap(
        build_noise(kind),
        np.asarray(columns, np.float32),
        np.asarray(rows, np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )


@dataclass(frozen=True)
class Stamp:
    """A shape to paint with: a window (rows, columns) of the map and the coverage 0..1 within it, float32."""

    window: tuple[slice, slice]
    coverage: np.ndarray


class FaceMap:
    """Layers over the front of the head, `ppu` pixels per head unit; all float32.

    albedo: linear RGB (h, w, 3).   height: along z in head units (h, w).
    occlusion: 1 open .. 0 dark (h, w).   gloss: strength of the highlight (h, w).
    Shapes are given as polygons (n, 2) in head coordinates.
    """

    def __init__(self, ppu: float, skin: np.ndarray):
        self.ppu = ppu
        width, height = (round(extent * ppu) for extent in MAP_EXTENT)
        self.shape = (height, width)
        self.albedo = np.empty((height, width, 3), np.float32)
        self.albedo[:] = skin
        self.height = np.zeros(self.shape, np.float32)
        self.occlusion = np.ones(self.shape, np.float32)
        self.gloss = np.full(self.shape, 0.05, np.float32)
        self.x = ((np.arange(width) + 0.5) / ppu + MAP_ORIGIN[0]).astype(np.float32)
        self.y = ((np.arange(height) + 0.5) / ppu + MAP_ORIGIN[1]).astype(np.float32)

    def make_bump(self, x: float, y: float, sx: float, sy: float) -> np.ndarray:
        """Return a Gaussian of height 1, (h, w)."""
        along_x = np.exp(-0.5 * ((self.x - x) / sx) ** 2)
        along_y = np.exp(-0.5 * ((self.y - y) / sy) ** 2)
        return np.outer(along_y, along_x)

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

    def paint(self, stamp: Stamp, colour: np.ndarray, opacity: float = 1.0) -> None:
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

    def _open_window(self, polygons: list[np.ndarray], reach: float, within: Stamp | None):
        """Return a window around the polygons, an empty mask for it, and the polygons in its fixed-point pixels."""
        if within is None:
            points = (np.concatenate(polygons) - MAP_ORIGIN) * self.ppu
            pad = reach * self.ppu + 2
            x0, y0 = np.clip(points.min(0) - pad, 0, np.array(self.shape[::-1]) - 1).astype(int)
            x1, y1 = np.clip(points.max(0) + pad, (x0 + 1, y0 + 1), self.shape[::-1]).astype(int)
            window = (slice(y0, y1), slice(x0, x1))
        else:
            window = within.window
        rows, columns = window
        mask = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
        origin = np.array((columns.start, rows.start)) + 0.5  # pixel centres lie at half pixels
        to_fixed = 2**_FIXED_POINT_BITS
        local = [np.round(((p - MAP_ORIGIN) * self.ppu - origin) * to_fixed).astype(np.int32) for p in polygons]
        return window, mask, local

    def _finish(self, window, mask: np.ndarray, soft: float, within: Stamp | None) -> Stamp:
        if soft * self.ppu > 0.3:
            mask = cv2.GaussianBlur(mask, (0, 0), soft * self.ppu)
        coverage = mask.astype(np.float32) * np.float32(1 / 255)
        return Stamp(window, coverage if within is None else coverage * within.coverage)
