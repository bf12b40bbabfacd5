"""How the weights move: the optimiser, its rate and the image size by epoch, the running average."""

import math

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import nn

from fer_lib.params import TrainingParams

EMA_WARMUP_POWER = 0.75
"""The average follows the weights closely at first, or it would stay at the start for hundreds of steps."""


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
    head = {id(p) for p in model.get_classifier().parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(not head_alone or id(parameter) in head)
    model.train()
    if head_alone:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def compute_lr(training: TrainingParams, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of `step` (from 0): linear warm-up, then constant or half a cosine to 0."""
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
