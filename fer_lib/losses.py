"""Losses over logits and hard or soft labels."""

from collections.abc import Callable

import torch
from torch.nn import functional as F  # noqa: N812

from fer_lib.params import TrainingParams

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def focal_loss(
    logits: torch.Tensor, targets: torch.Tensor, gamma: float, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Return the mean multi-class focal loss, a scalar, in nats.

    -sum_c t_c (1 - p_c)^gamma log p_c, after Lin et al. 2017, "Focal loss for dense object detection",
    eq. 4, with softmax probabilities and soft targets. With gamma 0 it is cross-entropy.

    logits: float (N, C).   targets: int64 (N,) class indices, or float (N, C) distributions.
    """
    log_p = F.log_softmax(logits.float(), dim=1)
    n_classes = logits.shape[1]
    soft = targets if targets.is_floating_point() else F.one_hot(targets, n_classes).to(log_p.dtype)
    soft = soft * (1 - label_smoothing) + label_smoothing / n_classes
    # expm1 keeps 1 - p exact where p is near 1; the clamp, its gradient finite where p rounds to 1.
    focus = (-torch.expm1(log_p)).clamp_min(1e-12) ** gamma if gamma else 1.0
    return -(soft * focus * log_p).sum(dim=1).mean()


def build_loss(training: TrainingParams) -> Loss:
    """Return the loss that `training` names; cross-entropy is the focal loss at gamma 0."""
    gamma = training.focal_gamma if training.loss == "focal" else 0.0
    return lambda logits, targets: focal_loss(logits, targets, gamma, training.label_smoothing)
