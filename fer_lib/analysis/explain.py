"""Where in a face the network found an emotion: Grad-CAM (Selvaraju et al. 2017) and its relatives."""

import threading
from collections.abc import Mapping

import cv2
import numpy as np
import torch
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, ScoreCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from fer_lib.errors import ModelError
from fer_lib.models.build import Checkpoint
from fer_lib.models.preprocessing import preprocess, resize_face, to_rgb

METHODS: Mapping[str, type[BaseCAM]] = {
    "Grad-CAM": GradCAM,
    "Grad-CAM++": GradCAMPlusPlus,
    "HiResCAM": HiResCAM,
    "Score-CAM": ScoreCAM,
}
"""Selvaraju et al. 2017; Chattopadhay et al. 2018; Draelos and Carin 2020; Wang et al. 2020."""

METHOD, REDUCTION = "HiResCAM", 8
"""What the app and `explain` show: of the methods and stages that notebook 07 compares on validation faces of
FER2013, the most faithful.

REDUCTION: how many pixels of the input a cell of the map stands for.
"""

BATCH_SIZE = 32

_lock = threading.Lock()
"""Grad-CAM hangs hooks on the network; two threads with one network would read each other's."""


def explain_face(checkpoint: Checkpoint, crop: np.ndarray, emotion: str) -> np.ndarray:
    """Return where a face speaks for an emotion, float32 (S, S) in 0..1, S being the network's input side.

    crop: uint8 (H, W) grey or (H, W, 3) RGB, in the model's framing (`Face.crop`).   emotion: one of the
    checkpoint's. All zeros: nothing speaks for it. The network is left as it was; threads may share it.
    Raises ModelError for an emotion it does not know, and for a network that is not convolutional.
    """
    if emotion not in checkpoint.emotions:
        raise ModelError(
            f"emotion: expected one that the model knows, {', '.join(checkpoint.emotions)}, found {emotion!r}"
        )
    images = torch.from_numpy(np.ascontiguousarray(preprocess([crop], checkpoint.preprocessing)))
    target = np.array([checkpoint.emotions.index(emotion)])
    return compute_heatmaps(checkpoint.model, images, target, find_stage(checkpoint.model))[0]


def compute_heatmaps(
    model: nn.Module, images: torch.Tensor, targets: np.ndarray, stage: str, method: str = METHOD
) -> np.ndarray:
    """Return float32 (N, S, S) maps of what speaks for `targets`, each stretched from its minimum, 0, to 1.

    images: float32 (N, 3, S, S), normalised.   targets: int (N,), indices of logits.   stage: the layer
    whose output is weighed, a key of `list_stages`.   method: a key of `METHODS`.
    """
    device = next(model.parameters()).device
    found = []
    with _lock, torch.enable_grad():
        try:
            with METHODS[method](model, [model.get_submodule(stage)]) as cam:
                for start in range(0, len(images), BATCH_SIZE):
                    part = slice(start, start + BATCH_SIZE)
                    wanted = [ClassifierOutputTarget(int(index)) for index in targets[part]]
                    found.append(cam(images[part].to(device), wanted))
        finally:
            model.zero_grad(set_to_none=True)
    return np.clip(np.nan_to_num(np.concatenate(found)), 0, 1).astype(np.float32)


def list_stages(model: nn.Module) -> dict[str, int]:
    """Return the layers that end a stage of a timm network: name to reduction, pixels per cell of its map.

    Raises ModelError for a network without such stages, as a transformer.
    """
    stages = {info["module"]: info["reduction"] for info in getattr(model, "feature_info", [])}
    modules = dict(model.named_modules())
    stages = {name: reduction for name, reduction in stages.items() if name in modules}
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


def overlay_heatmap(crop: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Return a face with a heat map over it, uint8 (S, S, 3) RGB; what is cold stays grey.

    crop: uint8 (H, W) or (H, W, 3) RGB.   heatmap: float (S, S) in 0..1, as `explain_face` gives it.
    Colours are those of inferno, from dark purple to yellow: brighter is hotter for every reader.
    """
    face = to_rgb(resize_face(crop, heatmap.shape[0])).astype(np.float32)
    face = face.mean(axis=2, keepdims=True)  # the map's colours then are the only ones
    levels = np.clip(heatmap * 255, 0, 255).round().astype(np.uint8)
    heat = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    alpha = 0.8 * np.clip(heatmap, 0, 1)[..., None]
    return ((1 - alpha) * face + alpha * heat).round().astype(np.uint8)
