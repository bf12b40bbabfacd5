"""Blur, resample and turn arrays so that every CPU comes to the same bits.

Vendors round the last bit of a single-precision sum differently: they add in another order, or multiply and
add in one step. Here such sums run in double precision and are rounded to single precision at the end, where
the difference is gone; matrices of three columns are multiplied term by term, without BLAS.
"""

import cv2
import numpy as np

_OFF_TIES = 2.0**-20


def blur(plane: np.ndarray, sigma_x: float, sigma_y: float = 0.0) -> np.ndarray:
    """Return a Gaussian blur of (h, w) or (h, w, c), float32; sigmas in pixels, the second as the first."""
    return cv2.GaussianBlur(plane.astype(np.float64), (0, 0), sigma_x, sigmaY=sigma_y).astype(np.float32)


def resample(
    layers: np.ndarray, columns: np.ndarray, rows: np.ndarray, border: int = cv2.BORDER_CONSTANT
) -> np.ndarray:
    """Return layers (h, w) or (h, w, c) at pixels between pixels, float32; `border` is one of OpenCV's."""
    maps = np.asarray(columns, np.float32), np.asarray(rows, np.float32)
    return cv2.remap(layers.astype(np.float64), *maps, cv2.INTER_LINEAR, None, border).astype(np.float32)


def double(layers: np.ndarray) -> np.ndarray:
    """Return layers (h, w) or (h, w, c) at twice the size, float32, interpolated linearly."""
    height, width = layers.shape[:2]
    return cv2.resize(layers.astype(np.float64), (2 * width, 2 * height)).astype(np.float32)


def halve(layers: np.ndarray) -> np.ndarray:
    """Return the mean of every 2 x 2 pixels of layers (h, w, ...), float32; both sides even."""
    top = layers[0::2, 0::2] + layers[0::2, 1::2]
    return (top + (layers[1::2, 0::2] + layers[1::2, 1::2])) * np.float32(0.25)


def turn(vectors: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return `vectors @ matrix.T` for vectors (..., k) and a matrix (m, k)."""
    terms = [vectors[..., None, k] * matrix[:, k] for k in range(matrix.shape[1])]
    return sum(terms[1:], start=terms[0])


def fix(points: np.ndarray, bits: int) -> np.ndarray:
    """Return points as integers with so many binary digits after the point, int32, rounded to nearest.

    Halves are common among drawn coordinates; a nudge keeps the last bit of one from deciding.
    """
    return np.floor(points * 2**bits + (0.5 + _OFF_TIES)).astype(np.int32)
