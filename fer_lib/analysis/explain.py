"""Compute saliency maps: where in a face a network finds an emotion, and which parts of it that is."""

import threading
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, ScoreCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from fer_lib.data.detector import CANDIDATE, Detector
from fer_lib.data.framing import FER2013_FRAMING, find_landmarks
from fer_lib.errors import ModelError
from fer_lib.models.build import Checkpoint
from fer_lib.models.preprocessing import Preprocessing, preprocess, resize_face, to_rgb

METHODS: Mapping[str, type[BaseCAM]] = {
    "Grad-CAM": GradCAM,
    "Grad-CAM++": GradCAMPlusPlus,
    "HiResCAM": HiResCAM,
    "Score-CAM": ScoreCAM,
}
"""Selvaraju et al. 2017; Chattopadhay et al. 2018; Draelos and Carin 2020; Wang et al. 2020."""

METHOD, REDUCTION = "HiResCAM", 8
"""What the app and `explain` show: on validation faces of FER2013 the most faithful in notebook 07.

REDUCTION: how many pixels of the input a cell of the map stands for.
"""

PARTS: dict[str, tuple[tuple[float, float, float, float], ...]] = {
    "brows": ((-0.5, -0.38, 0.42, 0.2), (0.5, -0.38, 0.42, 0.2)),
    "eyes": ((-0.5, 0.0, 0.36, 0.2), (0.5, 0.0, 0.36, 0.2)),
    "nose": ((0.0, 0.5, 0.3, 0.42),),
    "cheeks": ((-0.72, 0.62, 0.3, 0.36), (0.72, 0.62, 0.3, 0.36)),
    "mouth": ((0.0, 1.1, 0.52, 0.3),),
    "chin": ((0.0, 1.55, 0.5, 0.22),),
}
"""Ellipses: middle x, y and half axes, in eye distances from the middle of the eyes, y down the face."""

BACKGROUND, REST = "background", "rest of the face"
FACE = (0.0, 0.55, 1.12, 1.42)
"""The whole face as an ellipse in the same units; outside it is background."""

ACTIVE_PARTS: Mapping[str, tuple[str, ...]] = {
    "angry": ("brows", "eyes", "mouth"),
    "disgust": ("brows", "eyes", "nose", "mouth", "chin"),
    "fear": ("brows", "eyes", "mouth", "chin"),
    "happy": ("eyes", "cheeks", "mouth"),
    "sad": ("brows", "mouth"),
    "surprise": ("brows", "eyes", "mouth", "chin"),
    "neutral": ("brows", "eyes", "mouth"),
    "contempt": ("cheeks", "mouth"),
}
"""Parts that the action units of an emotion's prototype move (EMFACS); neutral's: where others show."""

BATCH_SIZE = 32

_lock = threading.Lock()
"""Grad-CAM hangs hooks on the network; two threads with one network would read each other's."""


def explain_face(checkpoint: Checkpoint, crop: np.ndarray, emotion: str) -> np.ndarray:
    """Return the saliency map of an emotion, float32 (S, S) in 0..1; all zeros where nothing speaks for it.

    The network is left as it was; threads may share it. S: the side of its input. crop: uint8 (H, W) grey or
    (H, W, 3) RGB, in the model's framing (`Face.crop`). Raises ModelError for an emotion that the model does
    not know, and for a network that is not convolutional.
    """
    if emotion not in checkpoint.emotions:
        raise ModelError(
            f"emotion: expected one that the model knows, {', '.join(checkpoint.emotions)}, found {emotion!r}"
        )
    target = np.array([checkpoint.emotions.index(emotion)])
    images = build_input([crop], checkpoint.preprocessing)
    return compute_saliency(checkpoint.model, images, target, find_stage(checkpoint.model))[0]


def build_input(crops: list[np.ndarray], preprocessing: Preprocessing) -> torch.Tensor:
    """Return crops as a network's input, float32 (N, 3, S, S)."""
    return torch.from_numpy(np.ascontiguousarray(preprocess(crops, preprocessing)))


def compute_saliency(
    model: nn.Module, images: torch.Tensor, targets: np.ndarray, stage: str, method: str = METHOD
) -> np.ndarray:
    """Return float32 (N, S, S) maps of what speaks for `targets`, each stretched from its minimum, 0, to 1.

    images: float32 (N, 3, S, S), normalised.   targets: int (N,), indices of logits.   stage: the layer whose
    output is weighted, a key of `list_stages`.   method: a key of `METHODS`.
    """
    device = next(model.parameters()).device
    wanted = [ClassifierOutputTarget(int(index)) for index in targets]
    found = []
    with _lock, torch.enable_grad():
        try:
            with METHODS[method](model, [model.get_submodule(stage)]) as cam:
                for start in range(0, len(images), BATCH_SIZE):
                    part = slice(start, start + BATCH_SIZE)
                    found.append(cam(images[part].to(device), wanted[part]))
        finally:
            model.zero_grad(set_to_none=True)
    return np.clip(np.nan_to_num(np.concatenate(found)), 0, 1).astype(np.float32)


def list_stages(model: nn.Module) -> dict[str, int]:
    """Return the layers that end a stage of a timm network: name to reduction, pixels per cell of its map.

    Raises ModelError for a network without such stages, as a transformer.
    """
    modules, infos = dict(model.named_modules()), getattr(model, "feature_info", [])
    stages = {info["module"]: info["reduction"] for info in infos if info["module"] in modules}
    if not any(isinstance(module, nn.Conv2d) for module in model.modules()) or len(set(stages.values())) < 2:
        raise ModelError(
            f"explain: expected a convolutional network, found {type(model).__name__}, which has no feature "
            "maps of several sizes; train one, such as tf_efficientnet_b0"
        )
    return stages


def find_stage(model: nn.Module) -> str:
    """Return the last stage whose cells are no larger than `REDUCTION` pixels. Raises as `list_stages`."""
    stages = list_stages(model)
    fitting = [name for name, reduction in stages.items() if reduction <= REDUCTION]
    return fitting[-1] if fitting else next(iter(stages))


def overlay_saliency(crop: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    """Return a face under its saliency map, uint8 (S, S, 3) RGB; what is cold stays grey.

    The colours are those of inferno, from dark purple to yellow: brighter is hotter for every reader. crop:
    uint8 (H, W) or (H, W, 3) RGB; saliency: float (S, S) in 0..1.
    """
    face = to_rgb(resize_face(crop, saliency.shape[0])).astype(np.float32)
    face = face.mean(axis=2, keepdims=True)  # the map's colours then are the only ones
    levels = np.clip(saliency * 255, 0, 255).round().astype(np.uint8)
    heat = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    alpha = 0.8 * np.clip(saliency, 0, 1)[..., None]
    return ((1 - alpha) * face + alpha * heat).round().astype(np.uint8)


def locate_landmarks(
    crops: Sequence[np.ndarray], typical: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return landmarks, float64 (N, 5, 2), fractions of the side, and whether YuNet found them, bool (N,).

    Where it finds no face in a crop, uint8, they are `typical`, (5, 2): without it the medians of the faces
    in which it does, or else those of FER2013.
    """
    detector = Detector(min_score=CANDIDATE)
    found = [find_landmarks(crop, detector) for crop in crops]
    is_found = np.array([points is not None for points in found], dtype=bool)
    known = [points for points in found if points is not None]
    if typical is None:
        typical = np.median(known, axis=0) if known else np.array(FER2013_FRAMING.landmarks)
    return np.array([typical if points is None else points for points in found], np.float64), is_found


def build_part_masks(landmarks: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Return part to bool (size, size); every pixel is in exactly one: a part, `REST` or `BACKGROUND`.

    A pixel in two parts belongs to the one listed first. landmarks: float (5, 2), fractions of the side.
    """
    grid = (np.indices((size, size))[::-1].transpose(1, 2, 0) + 0.5) / size
    left, right = landmarks[:2]
    across = right - left
    distance = max(float(np.hypot(*across)), 1e-3)
    axes = np.array([across / distance, [-across[1] / distance, across[0] / distance]])
    points = (grid - (left + right) / 2) @ axes.T / distance
    taken = np.zeros((size, size), bool)
    masks = {}
    for part, ellipses in PARTS.items():
        inside = np.logical_or.reduce([_fill(points, ellipse) for ellipse in ellipses])
        masks[part] = inside & ~taken
        taken |= inside
    face = _fill(points, FACE)
    masks[REST] = face & ~taken
    masks[BACKGROUND] = ~face & ~taken
    return masks


def _fill(points: np.ndarray, ellipse: tuple[float, float, float, float]) -> np.ndarray:
    x, y, half_width, half_height = ellipse
    return ((points[..., 0] - x) / half_width) ** 2 + ((points[..., 1] - y) / half_height) ** 2 <= 1
