"""Take one step of a training, in the precision of its device, and judge what it has learned."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from fer_lib.errors import ModelError
from fer_lib.training.distributed import all_reduce_mean, sync_batch_norms
from fer_lib.training.optim import Loss
from fer_lib.training.teacher import Teacher


def train_on_batch(
    model: nn.Module,
    images: torch.Tensor,
    targets: torch.Tensor,
    loss_function: Loss,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    autocast: torch.dtype | None,
    teachers: Sequence[Teacher] = (),
    share: float = 0.0,
) -> float:
    """Take one optimiser step on images (N, 3, S, S) and targets (N, C); return the loss of all processes.

    To the targets is added `share` of each teacher's predictions for the images.
    """
    images = images.to(device, memory_format=torch.channels_last, non_blocking=True)
    targets = targets.to(device, non_blocking=True)
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None), sync_batch_norms():
        for teacher in teachers:
            targets = targets + share * teacher(images)
        logits = model(images)
    loss = loss_function(logits, targets)
    loss.backward()
    optimizer.step()
    value = all_reduce_mean(loss.detach()).item()
    if not math.isfinite(value):
        raise ModelError(f"training diverged: the loss is {value}; lower training.lr or raise warmup_steps")
    return value


def choose_precision(precision: str, architecture: str, device: torch.device) -> torch.dtype | None:
    """Return the dtype to autocast to, or None for float32.

    `auto` on a GPU is bfloat16. On a CPU it was measured (benchmarks/training.py): one that multiplies
    bfloat16 itself (AVX-512 BF16, AMX) trains ResNets with it 1.5 times as fast, but EfficientNets at half
    the speed, whose depthwise convolutions it does not help.
    """
    if precision == "auto":
        multiplies_bfloat16: Callable[[], bool] = torch.cpu._is_avx512_bf16_supported
        fast = device.type == "cuda" or ("resnet" in architecture and multiplies_bfloat16())
        precision = "bfloat16" if fast else "float32"
    return torch.bfloat16 if precision == "bfloat16" else None


def compute_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of logits (N, C) whose largest is that of the label (N,)."""
    # Here, because importing it takes 3 s, and most who import this module train nothing.
    from torchmetrics.functional.classification import multiclass_stat_scores

    # From counts, for torchmetrics' own accuracy is a float32.
    counts = multiclass_stat_scores(logits.argmax(dim=1), labels, logits.shape[1], average="micro")
    n_correct, *_, n = counts.tolist()
    return n_correct / n
