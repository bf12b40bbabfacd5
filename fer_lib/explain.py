"""Where in a face the network found an emotion: Grad-CAM (Selvaraju et al. 2017)."""

import threading

import cv2
import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from fer_lib.errors import ModelError
from fer_lib.models import Checkpoint
from fer_lib.preprocessing import preprocess, resize_face, to_rgb

_lock = threading.Lock()
"""Grad-CAM hangs hooks on the network; two threads with one network would read each other's."""


def compute_gradcam(checkpoint: Checkpoint, crop: np.ndarray, emotion: str) -> np.ndarray:
    """Return where a face speaks for an emotion, float32 (S, S) in 0..1, S being the network's input side.

    crop: uint8 (H, W) grey or (H, W, 3) RGB, in the model's framing (`Face.crop`).   emotion: one of the
    checkpoint's. The map explains its logit, in the output of the last convolutional stage, which has few
    cells (4 x 4 for 112 pixels): it shows regions, no outlines. All zeros: nothing speaks for the emotion.
    The network is left as it was; threads may share it. Raises ModelError for an emotion it does not know,
    and for a network that is not convolutional.
    """
    if emotion not in checkpoint.emotions:
        raise ModelError(
            f"emotion: expected one that the model knows, {', '.join(checkpoint.emotions)}, found {emotion!r}"
        )
    model = checkpoint.model
    first = next(model.parameters())
    images = torch.from_numpy(np.ascontiguousarray(preprocess([crop], checkpoint.preprocessing))).to(
        first.device
    )
    target = ClassifierOutputTarget(checkpoint.emotions.index(emotion))
    with _lock, torch.enable_grad():
        layer = find_last_stage(model, images)
        try:
            with GradCAM(model, [layer]) as gradcam:
                heatmap = gradcam(images, [target])[0]
        finally:
            model.zero_grad(set_to_none=True)
    return np.clip(heatmap, 0, 1).astype(np.float32)


def find_last_stage(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Return the layer of a timm network whose output is its last feature map, the one that is pooled.

    images: float32 (N, 3, S, S). In EfficientNet that is the last batch norm, in ResNet the last stage.
    Raises ModelError when there is no such map of `num_features` channels, as in a transformer.
    """
    found: list[nn.Module] = []

    def record(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        if getattr(output, "ndim", 0) == 4 and output.shape[1] == model.num_features:
            found.append(layer)

    handles = [layer.register_forward_hook(record) for layer in model.modules() if layer is not model]
    try:
        with torch.inference_mode():
            features = model.forward_features(images)
    finally:
        for handle in handles:
            handle.remove()
    if features.ndim != 4 or not found:  # transformers give (N, tokens, channels)
        raise ModelError(
            f"explain: expected a convolutional network, found {type(model).__name__}, which has no feature "
            "map; train one, such as tf_efficientnet_b0"
        )
    return found[-1]


def overlay_heatmap(crop: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Return a face with a heat map over it, uint8 (S, S, 3) RGB; what is cold stays grey.

    crop: uint8 (H, W) or (H, W, 3) RGB.   heatmap: float (S, S) in 0..1, as `compute_gradcam` gives it.
    Colours are those of inferno, from dark purple to yellow: brighter is hotter for every reader.
    """
    face = to_rgb(resize_face(crop, heatmap.shape[0])).astype(np.float32)
    face = face.mean(axis=2, keepdims=True)  # the map's colours then are the only ones
    levels = np.clip(heatmap * 255, 0, 255).round().astype(np.uint8)
    heat = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    alpha = 0.8 * np.clip(heatmap, 0, 1)[..., None]
    return ((1 - alpha) * face + alpha * heat).round().astype(np.uint8)
