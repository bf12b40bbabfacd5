"""Augmentation around `fer_lib.models.preprocessing`, for training and for evaluation.

albumentations stays behind this module, so that it can be replaced in one place.
"""

import os
import random

import cv2
import numpy as np
import torch

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask a server for its newest version
import albumentations as A  # noqa: N812  (its own convention)

from fer_lib.models.preprocessing import Preprocessing, normalise, resize_face, to_rgb
from fer_lib.params import AugmentationParams

AUGMENTATIONS = {
    "rotation": "rotation_degrees",
    "scale": "scale",
    "shift": "shift",
    "aspect": "aspect",
    "flip": "flip_probability",
    "brightness": "brightness",
    "contrast": "contrast",
    "gamma": "gamma",
    "lighting": "lighting",
    "downscale": "downscale",
    "erasing": "erasing_probability",
}
"""Each random transform by name, with the parameter that turns it on."""

MIN_LIGHTING = 0.01
"""albumentations allows no less."""

ERASED_AREA = (0.02, 0.15)
"""Of the face: a hand or a strand of hair, not the whole mouth and both eyes."""


class Transform:
    """Face to network input: resize, augment (training only), to RGB, normalise."""

    def __init__(self, preprocessing: Preprocessing, random_transforms: list[A.BasicTransform]):
        self._preprocessing = preprocessing
        self._compose = A.Compose(random_transforms)

    def augment(self, image: np.ndarray, seed: int | None = None) -> np.ndarray:
        """Return the resized and augmented face, uint8 (S, S, 3) RGB.

        image: uint8, (H, W) grey or (H, W, 3) RGB. The same `seed` always gives the same result,
        whichever process computes it; an evaluation transform draws nothing and needs none.
        """
        if seed is not None:
            # One generator for all: `set_random_seed` would start every transform at the same draw, so that
            # a face shifted to the left would always be flipped.
            self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        resized = resize_face(image, self._preprocessing.image_size)
        return to_rgb(self._compose(image=resized)["image"])

    def normalise(self, image: np.ndarray) -> torch.Tensor:
        """Return the network input, float32 (3, S, S), of a uint8 (S, S, 3) RGB face."""
        return torch.from_numpy(normalise(image, self._preprocessing))

    def __call__(self, image: np.ndarray, seed: int | None = None) -> torch.Tensor:
        """Return `normalise(augment(image, seed))`."""
        return self.normalise(self.augment(image, seed))


def build_eval_transform(preprocessing: Preprocessing) -> Transform:
    """Return the deterministic transform used for validation, test and prediction."""
    return Transform(preprocessing, [])


def build_train_transform(preprocessing: Preprocessing, augmentation: AugmentationParams) -> Transform:
    """Return the training transform; a range of 0 leaves its transform out."""
    return Transform(preprocessing, _list_random_transforms(augmentation))


def list_active(augmentation: AugmentationParams) -> list[str]:
    """Return the names of the random transforms that `augmentation` turns on."""
    return [name for name, key in AUGMENTATIONS.items() if getattr(augmentation, key)]


def isolate_augmentation(augmentation: AugmentationParams, name: str) -> AugmentationParams:
    """Return `augmentation` with every transform but `name` turned off."""
    off = {key: 0.0 for other, key in AUGMENTATIONS.items() if other != name}
    return augmentation.model_copy(update=off)


def _list_random_transforms(augmentation: AugmentationParams) -> list[A.BasicTransform]:
    transforms: list[A.BasicTransform] = []
    if augmentation.rotation_degrees or augmentation.scale or augmentation.shift:
        # One warp for the three: every further interpolation would blur the face.
        affine = A.Affine(
            rotate=(-augmentation.rotation_degrees, augmentation.rotation_degrees),
            scale=(1 - augmentation.scale, 1 + augmentation.scale),
            keep_ratio=True,
            translate_percent=(-augmentation.shift, augmentation.shift),
            border_mode=cv2.BORDER_REPLICATE,  # faces fill their frame; black corners would be a cue
            p=1.0,
        )
        transforms.append(affine)
    if augmentation.aspect:
        width = {"x": (1 - augmentation.aspect, 1 + augmentation.aspect), "y": (1.0, 1.0)}
        transforms.append(A.Affine(scale=width, border_mode=cv2.BORDER_REPLICATE, p=0.5))
    if augmentation.flip_probability:
        transforms.append(A.HorizontalFlip(p=augmentation.flip_probability))
    if augmentation.brightness or augmentation.contrast:
        light = A.RandomBrightnessContrast(augmentation.brightness, augmentation.contrast, p=1.0)
        transforms.append(light)
    if augmentation.gamma:
        most = 100 * (1 + augmentation.gamma)  # in percent
        transforms.append(A.RandomGamma((10_000 / most, most), p=1.0))
    if augmentation.lighting:
        intensities = (MIN_LIGHTING, max(MIN_LIGHTING, augmentation.lighting))
        transforms.append(A.Illumination(intensity_range=intensities, p=0.5))
    if augmentation.downscale:
        areas = {"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR}
        scales = (1 - augmentation.downscale, 1.0)
        transforms.append(A.Downscale(scales, interpolation_pair=areas, p=0.5))
    if augmentation.erasing_probability:
        erase = A.Erasing(ERASED_AREA, fill="random_uniform", p=augmentation.erasing_probability)
        transforms.append(erase)
    return transforms
