"""What tricks of training are worth for a trained network: one more pass over half of the faces with each.

    python benchmarks/training_tricks.py [--dataset fer2013] [--recipe distilled] [--arms mixup,sam]

Every arm starts from the recipe's start and differs from the reference, the recipe itself, in one thing. It
prints NLL and accuracy on validation, the gain in accuracy over the reference with its 95 % interval (paired
bootstrap of the faces; one seed), and seconds. A short pass shows what a trick brings at once, and not what
mixup or SAM bring after many epochs. CutMix and SAM are here alone, not in the library.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from fer_lib.data.packed import PackedDataset, load_packed
from fer_lib.evaluation.bootstrap import Bootstrap
from fer_lib.models.preprocessing import Preprocessing
from fer_lib.param_sections import AugmentationParams, TargetShares
from fer_lib.params import Params, load_params
from fer_lib.paths import ROOT, get_output_dirs
from fer_lib.training import fit
from fer_lib.training.predict import Predictor
from fer_lib.training.recipes import build_recipe

SHORT = {"epochs": 1, "train_fraction": 0.5, "warmup_steps": 50, "lr": 5e-4, "ema_decay": 0.98}
LABELS = {"teachers": (), "targets": TargetShares(label=1)}
SAM_RADIUS = 0.05
SCALED = ("scale", "shift", "aspect", "contrast", "gamma", "downscale", "erasing_probability")
"""Ranges of the augmentation that `milder` and `stronger` multiply."""

ARMS = {
    "reference": {},
    "labels alone": LABELS,
    "labels smoothed": LABELS | {"label_smoothing": 0.1},
    "no EMA": {"ema_decay": 0.0},
    "mixup": {"mixup": 0.2},
    "CutMix": {"mixup": 1.0},
    "SAM half the steps": {"train_fraction": 0.25},
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
    "SAM half the steps": {"train_on_batch": step_with_sam},
}
STRENGTHS = {"milder": 0.5, "stronger": 1.5}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="fer2013")
    parser.add_argument("--recipe", default="distilled")
    parser.add_argument("--arms", default=",".join(ARMS), help="the reference is trained in any case")
    arguments = parser.parse_args()
    dirs, data = get_output_dirs(arguments.dataset, ROOT), load_packed(arguments.dataset)
    params = build_recipe(arguments.recipe, load_params(arguments.dataset), dirs)
    print(f"{arguments.recipe} on {arguments.dataset}, from {params.training.weights_file.name}: {SHORT}")
    print(f"{'arm':<20}{'NLL':>7}{'accuracy':>10}{'gain over the reference':>28}{'seconds':>9}")
    rows = data.get_rows("val")
    labels, bootstrap, is_right = data.labels[rows], Bootstrap(len(rows), 2000, 0), {}
    for arm in dict.fromkeys(["reference", *arguments.arms.split(",")]):
        training = params.training.model_copy(update=SHORT | ARMS[arm])
        augmentation = scale(params.augmentation, STRENGTHS.get(arm, 1.0))
        start = time.monotonic()
        changed = params.model_copy(update={"training": training, "augmentation": augmentation})
        probabilities = train_and_predict(data, changed, rows, arm)
        seconds = time.monotonic() - start
        is_right[arm] = probabilities.argmax(axis=1) == labels
        nll = -np.log(probabilities[np.arange(len(rows)), labels]).mean()
        gain = bootstrap.mean(is_right[arm].astype(float) - is_right["reference"])
        shown = f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
        print(f"{arm:<20}{nll:>7.3f}{is_right[arm].mean():>10.4f}{shown:>28}{seconds:>9.0f}", flush=True)


def scale(augmentation: AugmentationParams, strength: float) -> AugmentationParams:
    ranges = {name: min(0.9, strength * getattr(augmentation, name)) for name in SCALED}
    return augmentation.model_copy(update=ranges)


def train_and_predict(data: PackedDataset, params: Params, rows: np.ndarray, arm: str) -> np.ndarray:
    """Return the trained arm's probabilities (N, C) for the faces in `rows`."""
    with tempfile.TemporaryDirectory() as state, ExitStack() as patches:
        for name, function in PATCHES.get(arm, {}).items():
            patches.enter_context(patch.object(fit, name, function))
        result = fit.fit(data, params, Path(state))
    preprocessing = Preprocessing.from_dict(result.config["preprocessing"])
    return Predictor(result.model, preprocessing).predict(data.faces, rows)


if __name__ == "__main__":
    main()
