"""Losses over logits and hard or soft labels."""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from fer_lib.params import TrainingParams

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


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

    logits: float (N, C).   targets: int64 (N,) class indices, or float (N, C) distributions.
    class_weights: float (C,), or None for ones.
    """
    log_p = F.log_softmax(logits.float(), dim=1)
    n_classes = logits.shape[1]
    soft = targets if targets.is_floating_point() else F.one_hot(targets, n_classes).to(log_p.dtype)
    weights = log_p.new_ones(n_classes) if class_weights is None else class_weights.to(log_p)
    total = (soft * weights).sum()
    soft = soft * (1 - label_smoothing) + label_smoothing / n_classes
    # expm1 keeps 1 - p exact where p is near 1; the clamp, its gradient finite where p rounds to 1.
    focus = (-torch.expm1(log_p)).clamp_min(1e-12) ** gamma if gamma else 1.0
    return -(weights * soft * focus * log_p).sum() / total


def build_loss(training: TrainingParams, targets: np.ndarray) -> Loss:
    """Return the loss that `training` names; cross-entropy is the focal loss at gamma 0.

    targets: float (N, C) of the training faces, whose class frequencies `weighted_cross_entropy` inverts.
    """
    gamma = training.focal_gamma if training.loss == "focal" else 0.0
    weights = None
    if training.loss == "weighted_cross_entropy":
        weights = torch.from_numpy(1 / np.maximum(targets.mean(axis=0) * targets.shape[1], 1 / len(targets)))
    return lambda logits, soft: focal_loss(logits, soft, gamma, training.label_smoothing, weights)
