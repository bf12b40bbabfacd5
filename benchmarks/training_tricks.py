"""What tricks of training are worth for a trained network: one more pass over half of the faces with each.

    python benchmarks/training_tricks.py [--dataset fer2013] [--recipe distilled] [--arms mixup,sam]

Every arm starts from the recipe's start and differs from the reference, the recipe itself, in one thing. It
prints accuracy and NLL on validation, and seconds. CutMix and SAM are here alone, not in the library.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fer_lib.data.packed import load_packed
from fer_lib.param_sections import AugmentationParams, TargetShares, TrainingParams
from fer_lib.params import load_params
from fer_lib.paths import ROOT, get_output_dirs
from fer_lib.training import fit
from fer_lib.training.recipes import build_recipe

SHORT = {"epochs": 1, "train_fraction": 0.5, "warmup_steps": 50, "lr": 5e-4, "ema_decay": 0.98}
LABELS = {"teachers": (), "targets": TargetShares(label=1)}
SAM_RADIUS = 0.05
SCALED = ("scale", "shift", "aspect", "contrast", "gamma", "downscale", "erasing_probability")
"""Ranges of the augmentation that `milder` and `stronger` multiply."""

ARMS = {
    "reference": {},
    "labels alone": LABELS,
    "labels, smoothed": LABELS | {"label_smoothing": 0.1},
    "no EMA": {"ema_decay": 0.0},
    "mixup": {"mixup": 0.2},
    "CutMix": {"mixup": 1.0},
    "SAM, half the steps": {"train_fraction": 0.25},
    "milder": {},
    "stronger": {},
}
"""What each changes of the section `training`; SAM takes twice the time a step."""


def cutmix(images: torch.Tensor, targets: torch.Tensor, alpha: float, rng: np.random.Generator) -> tuple:
    """Put a rectangle of another image into each, in half of the batches (Yun et al. 2019, alg. 1)."""
    if rng.random() < 0.5:
        return images, targets
    size = images.shape[-1]
    side = int(size * math.sqrt(1 - rng.beta(alpha, alpha)))
    top, left = rng.integers(0, size - side + 1, 2)
    others = torch.from_numpy(rng.permutation(len(images)))
    mixed = images.clone()
    window = (slice(None), slice(None), slice(top, top + side), slice(left, left + side))
    mixed[window] = images[others][window]
    kept = 1 - (side / size) ** 2
    return mixed, kept * targets + (1 - kept) * targets[others]


def step_with_sam(
    model, images, targets, loss_function, optimizer, device, autocast, teachers=(), share=0.0
) -> float:
    """Take a step with the gradient at the worst point near the weights (Foret et al. 2021, alg. 1)."""
    images = images.to(device, memory_format=torch.channels_last)
    for teacher in teachers:
        targets = targets + share * teacher(images)
    optimizer.zero_grad(set_to_none=True)
    loss = loss_function(model(images), targets)
    loss.backward()
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in parameters]))
    moves = [SAM_RADIUS * parameter.grad / norm for parameter in parameters]
    with torch.no_grad():
        torch._foreach_add_(parameters, moves)
    optimizer.zero_grad(set_to_none=True)
    loss_function(model(images), targets).backward()
    with torch.no_grad():
        torch._foreach_sub_(parameters, moves)
    optimizer.step()
    return loss.item()


PATCHES: dict[str, dict[str, Callable]] = {
    "CutMix": {"mix_batch": cutmix},
    "SAM, half the steps": {"train_on_batch": step_with_sam},
}
STRENGTHS = {"milder": 0.5, "stronger": 1.5}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="fer2013")
    parser.add_argument("--recipe", default="distilled")
    parser.add_argument("--arms", default=",".join(ARMS).replace(", ", "/"))
    arguments = parser.parse_args()
    dirs, data = get_output_dirs(arguments.dataset, ROOT), load_packed(arguments.dataset)
    params = build_recipe(arguments.recipe, load_params(arguments.dataset), dirs)
    print(f"{arguments.recipe} on {arguments.dataset}, from {params.training.weights_file.name}: {SHORT}")
    print(f"{'arm':<22}{'accuracy':>10}{'NLL':>8}{'seconds':>9}")
    for arm in arguments.arms.split(","):
        arm = arm.replace("/", ", ")
        training = params.training.model_copy(update=SHORT | ARMS[arm])
        augmentation = scale(params.augmentation, STRENGTHS.get(arm, 1.0))
        last, seconds = try_arm(data, params.model_copy(update={"augmentation": augmentation}), training, arm)
        print(f"{arm:<22}{last['val_accuracy']:>10.4f}{last['val_loss']:>8.3f}{seconds:>9.0f}", flush=True)


def scale(augmentation: AugmentationParams, strength: float) -> AugmentationParams:
    ranges = {name: min(0.9, strength * getattr(augmentation, name)) for name in SCALED}
    return augmentation.model_copy(update=ranges)


def try_arm(data, params, training: TrainingParams, arm: str) -> tuple[dict[str, float], float]:
    """Return the last row of the arm's history, and the seconds it took."""
    plain = {name: getattr(fit, name) for name in PATCHES.get(arm, {})}
    for name, function in PATCHES.get(arm, {}).items():
        setattr(fit, name, function)
    start = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as state:
            result = fit.fit(data, params.model_copy(update={"training": training}), Path(state))
    finally:
        for name, function in plain.items():
            setattr(fit, name, function)
    return result.history.iloc[-1].to_dict(), time.monotonic() - start


if __name__ == "__main__":
    main()
