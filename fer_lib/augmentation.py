"""What each random transform of the training does to faces, one at a time and all together."""

import numpy as np
import pandas as pd

from fer_lib.params import AugmentationParams
from fer_lib.transforms import (
    AUGMENTATIONS,
    Preprocessing,
    build_eval_transform,
    build_train_transform,
    isolate_augmentation,
)

ORIGINAL, TOGETHER = "original", "all together"


def apply_each(
    faces: np.ndarray, augmentation: AugmentationParams, preprocessing: Preprocessing
) -> dict[str, list[np.ndarray]]:
    """Return the faces as the network sees them, untouched, under each transform alone, and under all.

    faces: uint8 (N, H, W) or (N, H, W, 3).   Values: N images uint8 (S, S, 3), before normalisation.
    The i-th face always draws with the seed `augmentation.seed + i`.
    """
    transforms = {ORIGINAL: build_eval_transform(preprocessing)}
    for name in AUGMENTATIONS:
        transforms[name] = build_train_transform(preprocessing, isolate_augmentation(augmentation, name))
    transforms[TOGETHER] = build_train_transform(preprocessing, augmentation)
    return {
        name: [transform.augment(face, augmentation.seed + i) for i, face in enumerate(faces)]
        for name, transform in transforms.items()
    }


def measure_statistics(variants: dict[str, list[np.ndarray]]) -> pd.DataFrame:
    """Return one row per image and transform: transform, mean, std, and change, all in grey levels.

    change: mean absolute difference from the same face untouched.   variants: from `apply_each`.
    """
    originals = np.stack(variants[ORIGINAL]).astype(np.float32)
    rows = []
    for name, images in variants.items():
        pixels = np.stack(images).astype(np.float32)
        axes = (1, 2, 3)
        values = {
            "transform": name,
            "mean": pixels.mean(axes),
            "std": pixels.std(axes),
            "change": np.abs(pixels - originals).mean(axes),
        }
        rows.append(pd.DataFrame(values))
    return pd.concat(rows, ignore_index=True)


def summarise_statistics(stats: pd.DataFrame) -> pd.DataFrame:
    """Return one row per transform: means of the three, and how far mean and std moved from `original`."""
    table = stats.groupby("transform", sort=False).mean()
    table["mean_shift"] = table["mean"] - table.loc[ORIGINAL, "mean"]
    table["std_shift"] = table["std"] - table.loc[ORIGINAL, "std"]
    return table
