"""What each random transform of the training does to faces, one at a time and all together."""

import numpy as np
import pandas as pd

from fer_lib.params import AugmentationParams
from fer_lib.training.transforms import (
    Preprocessing,
    build_eval_transform,
    build_train_transform,
    isolate_augmentation,
    list_active,
)

ORIGINAL, TOGETHER = "original", "all together"

SAMPLE_FACES = 1000
"""Enough for means to a tenth of a grey level, few enough for seconds."""


def apply_each(
    faces: np.ndarray, augmentation: AugmentationParams, preprocessing: Preprocessing
) -> dict[str, list[np.ndarray]]:
    """Return the faces as the network sees them, untouched, under each active transform alone, and under all.

    faces: uint8 (N, H, W) or (N, H, W, 3).   Values: N images uint8 (S, S, 3), before normalisation.
    The i-th face always draws with the seed `augmentation.seed + i`.
    """
    transforms = {ORIGINAL: build_eval_transform(preprocessing)}
    for name in list_active(augmentation):
        transforms[name] = build_train_transform(preprocessing, isolate_augmentation(augmentation, name))
    transforms[TOGETHER] = build_train_transform(preprocessing, augmentation)
    return {
        name: [transform.augment(face, augmentation.seed + i) for i, face in enumerate(faces)]
        for name, transform in transforms.items()
    }


def choose_sample(rows: np.ndarray) -> np.ndarray:
    """Return about `SAMPLE_FACES` of `rows`, evenly spread."""
    return rows[:: max(1, len(rows) // SAMPLE_FACES)]


def measure_statistics(variants: dict[str, list[np.ndarray]]) -> pd.DataFrame:
    """Return one row per image and transform, all values in grey levels.

    Columns: transform, mean and std of the image's pixels, mean_shift and std_shift, by how much they differ
    from the same face untouched, and change, the mean absolute difference of its pixels.
    variants: from `apply_each`.
    """
    originals = np.stack(variants[ORIGINAL]).astype(np.float32)
    axes = (1, 2, 3)
    rows = []
    for name, images in variants.items():
        pixels = np.stack(images).astype(np.float32)
        values = {
            "transform": name,
            "mean": pixels.mean(axes),
            "std": pixels.std(axes),
            "mean_shift": pixels.mean(axes) - originals.mean(axes),
            "std_shift": pixels.std(axes) - originals.std(axes),
            "change": np.abs(pixels - originals).mean(axes),
        }
        rows.append(pd.DataFrame(values))
    return pd.concat(rows, ignore_index=True)


def summarise_statistics(stats: pd.DataFrame) -> pd.DataFrame:
    """Return one row per transform: the mean absolute mean_shift and std_shift, and the mean change.

    Absolute, because a transform that brightens as often as it darkens moves no average.
    """
    shifts = stats.set_index("transform")[["mean_shift", "std_shift", "change"]].abs()
    return shifts.groupby(level="transform", sort=False).mean().drop(index=ORIGINAL)
