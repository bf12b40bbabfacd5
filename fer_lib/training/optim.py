"""Build losses and the optimiser, and say how the learning rate and the image size change while training."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fer_lib.errors import ParamsError
from fer_lib.models.networks import get_classifier
from fer_lib.param_sections import TrainingParams
from fer_lib.training.distributed import all_reduce_mean

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits (N, C) and targets, int64 (N,) or float (N, C), to a scalar."""

EMA_WARMUP_POWER = 0.75
"""The average follows the weights closely at first, or it would stay at the start for hundreds of steps."""


def focal_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    gamma: float,
    label_smoothing: float = 0.0,
    class_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean multi-class focal loss, a scalar, in nats.

    -sum_c w_c t_c (1 - p_c)^gamma log p_c, after Lin et al. 2017, "Focal loss for dense object detection",
    eq. 4, with softmax probabilities and soft targets. With gamma 0 it is cross-entropy. Class weights w make
    it a weighted mean over the faces, as in PyTorch: of weight sum_c w_c t_c each.

    Parameters
    ----------
    logits, targets
        As of `Loss`.
    gamma
        How much less a face counts that the network is sure of.
    label_smoothing
        The share of every target that is spread over all classes.
    class_weights
        Float (C,), or None for ones.
    """
    log_p = F.log_softmax(logits.float(), dim=1)
    n_classes = logits.shape[1]
    soft = targets if targets.is_floating_point() else F.one_hot(targets, n_classes).to(log_p.dtype)
    weights = log_p.new_ones(n_classes) if class_weights is None else class_weights.to(log_p)
    total = (soft * weights).sum()
    if class_weights is not None:  # without, every process has the same
        total = all_reduce_mean(total)
    soft = soft * (1 - label_smoothing) + label_smoothing / n_classes
    # expm1 keeps 1 - p exact where p is near 1; the clamp, its gradient finite where p rounds to 1.
    focus = (-torch.expm1(log_p)).clamp_min(1e-12) ** gamma if gamma else 1.0
    return -(weights * soft * focus * log_p).sum() / total


def _build_weighted_cross_entropy(training: TrainingParams, targets: np.ndarray) -> Loss:
    weights = torch.from_numpy(1 / np.maximum(targets.mean(axis=0) * targets.shape[1], 1 / len(targets)))
    return partial(focal_loss, gamma=0.0, label_smoothing=training.label_smoothing, class_weights=weights)


LOSSES: dict[str, Callable[[TrainingParams, np.ndarray], Loss]] = {
    "focal": lambda training, _: partial(
        focal_loss, gamma=training.focal_gamma, label_smoothing=training.label_smoothing
    ),
    "cross_entropy": lambda training, _: partial(
        focal_loss, gamma=0.0, label_smoothing=training.label_smoothing
    ),
    "weighted_cross_entropy": _build_weighted_cross_entropy,
}
"""What `training.loss` may name: from the parameters and the training faces' targets (N, C) to a loss."""


def build_loss(training: TrainingParams, targets: np.ndarray) -> Loss:
    """Return the loss that `training` names; see `LOSSES`. Raises ParamsError for one that is not there."""
    if training.loss not in LOSSES:
        raise ParamsError(f"training.loss: no {training.loss!r}; known: {', '.join(LOSSES)}")
    return LOSSES[training.loss](training, targets)


def build_optimizer(model: nn.Module, training: TrainingParams) -> torch.optim.Optimizer:
    """Return AdamW; norms and biases do not decay, early layers learn slower where `layer_decay` says so."""
    if training.layer_decay < 1:
        groups = param_groups_layer_decay(model, training.weight_decay, layer_decay=training.layer_decay)
    else:
        groups = param_groups_weight_decay(model, training.weight_decay)
    return torch.optim.AdamW(groups, lr=training.lr, fused=True)


def build_ema(model: nn.Module, decay: float) -> ModelEmaV3 | None:
    """Return the running average of `model`'s weights, or None when `decay` is 0."""
    if not decay:
        return None
    return ModelEmaV3(model, decay=decay, use_warmup=True, warmup_power=EMA_WARMUP_POWER)


def set_trainable(model: nn.Module, head_alone: bool) -> None:
    """Put `model` in training mode; with `head_alone` the rest keeps its weights and its norm statistics."""
    head = {id(p) for p in get_classifier(model).parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(not head_alone or id(parameter) in head)
    model.train()
    if head_alone:
        # Not `timm.utils.freeze`, which puts other layers in place of batch norms.
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def compute_lr(training: TrainingParams, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of `step` (from 0): linear warm-up, then constant or half a cosine to 0.

    A function of the step alone, so that an interrupted training goes on with the same bits; torch's
    schedulers multiply step by step and differ in the last ones.
    """
    if step < training.warmup_steps:
        return training.lr * (step + 1) / training.warmup_steps
    if training.schedule == "constant":
        return training.lr
    total = training.epochs * steps_per_epoch
    progress = (step - training.warmup_steps) / max(1, total - training.warmup_steps)
    return training.lr * 0.5 * (1 + math.cos(math.pi * progress))


def compute_image_size(training: TrainingParams, epoch: int) -> int:
    """Return the side in pixels at `epoch` (from 0): it grows by 16s, the last third of epochs is full size.

    Progressive learning of Tan and Le 2021 (EfficientNetV2, sec. 4), without its growing regularisation.
    """
    first, last = training.first_image_size or training.image_size, training.image_size
    progress = min(1.0, epoch / max(1, training.epochs * 2 / 3))
    return last if progress == 1 else min(last, first + int((last - first) * progress) // 16 * 16)
