"""Augment training faces, and measure what each augmentation does to them.

albumentations stays behind this module, so that it can be replaced in one place.
"""

import os
import random
from collections.abc import Callable

import cv2
import numpy as np
import pandas as pd
import torch

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask a server for its newest version
import albumentations as A  # noqa: N812  (its own convention)

from fer_lib.models.preprocessing import Preprocessing, normalise, resize_face, to_rgb
from fer_lib.param_sections import AugmentationParams

MIN_LIGHTING = 0.01
"""albumentations allows no less."""

ERASED_AREA = (0.02, 0.15)
"""Of the face: a hand or a strand of hair, not the whole mouth and both eyes."""

ORIGINAL, TOGETHER = "original", "all together"

SAMPLE_FACES = 1000
"""Enough for means to a tenth of a grey level, few enough for seconds."""


TRANSFORMS: dict[tuple[str, ...], Callable[[AugmentationParams], A.BasicTransform]] = {
    # One warp for the three: every further interpolation would blur the face.
    ("rotation_degrees", "scale", "shift"): lambda p: A.Affine(
        rotate=(-p.rotation_degrees, p.rotation_degrees),
        scale=(1 - p.scale, 1 + p.scale),
        keep_ratio=True,
        translate_percent=(-p.shift, p.shift),
        border_mode=cv2.BORDER_REPLICATE,  # faces fill their frame; black corners would be a cue
        p=1.0,
    ),
    ("aspect",): lambda p: A.Affine(
        scale={"x": (1 - p.aspect, 1 + p.aspect), "y": (1.0, 1.0)}, border_mode=cv2.BORDER_REPLICATE, p=0.5
    ),
    ("flip_probability",): lambda p: A.HorizontalFlip(p=p.flip_probability),
    ("brightness", "contrast"): lambda p: A.RandomBrightnessContrast(p.brightness, p.contrast, p=1.0),
    # In percent, from 1 / (1 + gamma) to 1 + gamma.
    ("gamma",): lambda p: A.RandomGamma((10_000 / (100 * (1 + p.gamma)), 100 * (1 + p.gamma)), p=1.0),
    ("lighting",): lambda p: A.Illumination(
        intensity_range=(MIN_LIGHTING, max(MIN_LIGHTING, p.lighting)), p=0.5
    ),
    ("downscale",): lambda p: A.Downscale(
        (1 - p.downscale, 1.0),
        interpolation_pair={"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR},
        p=0.5,
    ),
    ("erasing_probability",): lambda p: A.Erasing(
        ERASED_AREA, fill="random_uniform", p=p.erasing_probability
    ),
}
"""The random transforms in the order in which they are applied, by the parameters that turn them on."""

AUGMENTATIONS = {
    parameter.removesuffix("_degrees").removesuffix("_probability"): parameter
    for parameters in TRANSFORMS
    for parameter in parameters
}
"""Each augmentation by name, with the parameter that turns it on."""


class TrainTransform:
    """Turn a face into the network's input: resize, augment (where a range is not 0), to RGB, normalise."""

    def __init__(self, preprocessing: Preprocessing, augmentation: AugmentationParams):
        self._preprocessing = preprocessing
        self._compose = A.Compose(
            [
                build(augmentation)
                for parameters, build in TRANSFORMS.items()
                if any(getattr(augmentation, parameter) for parameter in parameters)
            ]
        )

    def augment(self, image: np.ndarray, seed: int | None = None) -> np.ndarray:
        """Return a uint8 (H, W) grey or (H, W, 3) RGB face resized and augmented, uint8 (S, S, 3) RGB.

        The same seed always gives the same result, whichever process computes it.
        """
        # One generator for all: `set_random_seed` would start every transform at the same draw, so that a
        # face shifted to the left would always be flipped.
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        resized = resize_face(image, self._preprocessing.image_size)
        return to_rgb(self._compose(image=resized)["image"])

    def __call__(self, image: np.ndarray, seed: int | None = None) -> torch.Tensor:
        """Return the network input, float32 (3, S, S); see `augment`."""
        return torch.from_numpy(normalise(self.augment(image, seed), self._preprocessing))


def list_active(augmentation: AugmentationParams) -> list[str]:
    """Return the names of the augmentations that are turned on."""
    return [name for name, key in AUGMENTATIONS.items() if getattr(augmentation, key)]


def isolate_augmentation(augmentation: AugmentationParams, name: str | None) -> AugmentationParams:
    """Return `augmentation` with all but `name` turned off; all of them for None."""
    off = {key: 0.0 for other, key in AUGMENTATIONS.items() if other != name}
    return augmentation.model_copy(update=off)


def apply_each(
    faces: np.ndarray, augmentation: AugmentationParams, preprocessing: Preprocessing
) -> dict[str, list[np.ndarray]]:
    """Return the faces as the network sees them: untouched, under each active augmentation, under all.

    `faces` are uint8 (N, H, W) or (N, H, W, 3); the i-th always draws with the seed `augmentation.seed + i`.
    By name, `ORIGINAL` first and `TOGETHER` last, they become N images uint8 (S, S, 3), not yet normalised.
    """
    settings = {ORIGINAL: isolate_augmentation(augmentation, None)}
    settings |= {name: isolate_augmentation(augmentation, name) for name in list_active(augmentation)}
    settings[TOGETHER] = augmentation
    images = {}
    for name, chosen in settings.items():
        transform = TrainTransform(preprocessing, chosen)
        images[name] = [transform.augment(face, augmentation.seed + i) for i, face in enumerate(faces)]
    return images


def choose_sample(rows: np.ndarray) -> np.ndarray:
    """Return about `SAMPLE_FACES` of `rows`, evenly spread."""
    return rows[:: max(1, len(rows) // SAMPLE_FACES)]


def measure_statistics(images: dict[str, list[np.ndarray]]) -> pd.DataFrame:
    """Return one row per image and augmentation of `apply_each`, all values in grey levels.

    Columns: transform; mean and std of the image's pixels; mean_shift and std_shift, by how much they differ
    from the same face untouched; change, the mean absolute difference of its pixels.
    """
    originals = np.stack(images[ORIGINAL]).astype(np.float32)
    axes = (1, 2, 3)
    tables = []
    for name, changed in images.items():
        pixels = np.stack(changed).astype(np.float32)
        table = pd.DataFrame({"transform": name, "mean": pixels.mean(axes), "std": pixels.std(axes)})
        table["mean_shift"] = table["mean"] - originals.mean(axes)
        table["std_shift"] = table["std"] - originals.std(axes)
        table["change"] = np.abs(pixels - originals).mean(axes)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def summarise_statistics(stats: pd.DataFrame) -> pd.DataFrame:
    """Return one row per augmentation: the mean absolute mean_shift and std_shift, and the mean change.

    Absolute, because an augmentation that brightens as often as it darkens moves no average.
    """
    shifts = stats.set_index("transform")[["mean_shift", "std_shift", "change"]].abs()
    return shifts.groupby(level="transform", sort=False).mean().drop(index=ORIGINAL)


def mix_batch(
    images: torch.Tensor, targets: torch.Tensor, alpha: float, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a mixup of a batch with itself in another order (Zhang et al. 2018), one share for the batch.

    `images` are float (N, 3, S, S), `targets` float (N, C). timm's own mixup takes class indices alone.
    """
    share, order = rng.beta(alpha, alpha), torch.from_numpy(rng.permutation(len(images)))
    order = order.to(images.device)
    return share * images + (1 - share) * images[order], share * targets + (1 - share) * targets[order]
