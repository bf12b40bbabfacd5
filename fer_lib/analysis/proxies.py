"""What pictures show of themselves: proxies by which to group photographs, of which no one knows more."""

from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd

NO_FACE = "no face"
"""The group of pictures in which the detector found no landmarks, where the proxy rests on these."""


def measure_proxies(faces: Sequence[np.ndarray], landmarks: np.ndarray, is_found: np.ndarray) -> pd.DataFrame:
    """Return what pictures show of themselves, one row per face; none of it says who or what a person is.

    luminance: mean grey level (0 to 255) about the nose, of skin and light together.   sharpness: variance
    of the Laplacian.   size: eye distance as a share of the side.   yaw: how far the nose's tip is off the
    middle of the eyes, in eye distances.   roll: tilt of the eyes, degrees. Size, yaw and roll are NaN where
    the landmarks were not found.
    faces: uint8 (H, W) or (H, W, 3).   landmarks: (N, 5, 2), shares of the side.   is_found: bool (N,).
    """
    rows = []
    for face, points, known in zip(faces, landmarks, is_found, strict=True):
        grey = face if face.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(face), cv2.COLOR_RGB2GRAY)
        side, middle = grey.shape[0], points[:2].mean(axis=0)
        across = points[1] - points[0]
        distance = max(float(np.hypot(*across)), 1e-3)
        reach = distance * side / 2
        x, y = points[2] * side
        patch = grey[
            max(0, int(y - reach / 2)) : int(y + reach / 2) + 1, max(0, int(x - reach)) : int(x + reach) + 1
        ]
        rows.append(
            {
                "luminance": float(patch.mean()) if patch.size else float(grey.mean()),
                "sharpness": float(cv2.Laplacian(np.ascontiguousarray(grey), cv2.CV_64F).var()),
                "size": distance if known else np.nan,
                "yaw": abs(float((points[2] - middle) @ across)) / distance**2 if known else np.nan,
                "roll": abs(float(np.degrees(np.arctan2(across[1], across[0])))) if known else np.nan,
            }
        )
    return pd.DataFrame(rows)


def cut_quintiles(values: pd.Series, seed: int) -> np.ndarray:
    """Return the fifth of the known values in which each lies, "1" to "5", or `NO_FACE`, as text (N,).

    Equal values are put in an order drawn by the seed, since files come sorted by class.
    """
    known = np.flatnonzero(values.notna())
    shuffled = np.random.default_rng(seed).permutation(known)
    ordered = shuffled[np.argsort(values.to_numpy()[shuffled], kind="stable")]
    fifths = np.full(len(values), NO_FACE, dtype=object)
    fifths[ordered] = (1 + 5 * np.arange(len(known)) // max(1, len(known))).astype(str)
    return fifths.astype(str)
