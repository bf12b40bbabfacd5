"""Training: `fit` runs epochs, keeps the best, stops early, and goes on where it was interrupted."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from timm.optim import param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import nn
from tqdm import tqdm

from fer_lib.errors import ModelError
from fer_lib.inference import run_batches
from fer_lib.loading import (
    EpochBatches,
    FaceDataset,
    build_eval_batches,
    build_loader,
    compute_sampling_weights,
)
from fer_lib.losses import Loss, build_loss
from fer_lib.models import create_model
from fer_lib.packed import PackedDataset
from fer_lib.params import Params, TrainingParams
from fer_lib.preprocessing import Preprocessing
from fer_lib.training_state import TrainingState, compute_fingerprint
from fer_lib.transforms import build_eval_transform, build_train_transform
from fer_lib.weights import load_initial_weights

SAVE_EVERY_SECONDS = 60.0
"""An interruption costs at most about a minute of training."""

EMA_WARMUP_POWER = 0.75
"""The average follows the weights closely at first, or it would stay at the start for hundreds of steps."""


@dataclass(frozen=True)
class FitResult:
    """A trained network and the record of its training.

    history: one row per epoch: epoch, lr, train_loss, val_loss, val_accuracy, seconds.
    config: what `save_checkpoint` stores beside the weights.
    """

    model: nn.Module
    history: pd.DataFrame
    config: dict[str, Any]

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights `model` holds, counted from 1."""
        return self.config["best_epoch"]


def fit(data: PackedDataset, params: Params, state_dir: Path) -> FitResult:
    """Train a network on the train split of `data`, selecting the epoch on its validation split.

    The state is saved in `state_dir` about once a minute. Called again with the same data, parameters and
    code, `fit` goes on from there and ends with the same weights; with others it starts anew. To the bit that
    holds on one machine's CPU; a GPU adds up in no fixed order.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run = _Run(data, params, device)
    fingerprint = compute_fingerprint(data.data_hash, params, run.initial, device)
    state = TrainingState.load_or_create(state_dir, fingerprint)
    run.restore(state)
    total = params.training.epochs * len(run.batches)
    done = state.epoch * len(run.batches) + state.step
    with tqdm(total=total, initial=done, desc="train", unit="batch", dynamic_ncols=True) as bar:
        while not state.finished:
            bar.set_description(f"epoch {state.epoch + 1}/{params.training.epochs}")
            run.train_one_epoch(state, bar)
            run.finish_epoch(state)
            bar.set_postfix_str(_describe_last(state.history))
            run.save(state)
    run.model.load_state_dict(state.best_weights)
    history = pd.DataFrame(state.history)
    return FitResult(run.model, history, run.describe(state, history))


class _Run:
    """The parts that one training needs, built from the parameters alone."""

    def __init__(self, data: PackedDataset, params: Params, device: torch.device):
        training = params.training
        torch.manual_seed(training.seed)
        self.data, self.params, self.device = data, params, device
        self.model = create_model(training.architecture, len(data.emotions), training.dropout)
        self.initial = load_initial_weights(
            self.model, training.architecture, training.weights, training.weights_file
        )
        self.preprocessing = Preprocessing(training.image_size, self.initial.mean, self.initial.std)
        self.model.to(device, memory_format=torch.channels_last)
        self.ema = build_ema(self.model, training.ema_decay)
        self.optimizer = torch.optim.AdamW(
            param_groups_weight_decay(self.model, training.weight_decay), lr=training.lr, fused=True
        )
        self.loss = build_loss(training)
        self.autocast = choose_precision(training.precision, training.architecture, device)
        self.batches = self._build_train_batches()
        augmented = build_train_transform(self.preprocessing, params.augmentation)
        self.train_loader = build_loader(FaceDataset(data, augmented), self.batches)
        self.val_rows = data.get_rows("val")
        plain = FaceDataset(data, build_eval_transform(self.preprocessing))
        self.val_loader = build_loader(plain, build_eval_batches(self.val_rows, 2 * training.batch_size))

    def _build_train_batches(self) -> EpochBatches:
        training, rows = self.params.training, self.data.get_rows("train")
        weighted = training.sampler == "weighted"
        weights = compute_sampling_weights(self.data.labels[rows]) if weighted else None
        return EpochBatches(rows, weights, training.batch_size, training.seed)

    def restore(self, state: TrainingState) -> None:
        """Continue from `state`, when it holds anything."""
        if not state.model or state.finished:
            return
        self.model.load_state_dict(state.model)
        self.optimizer.load_state_dict(state.optimizer)
        if self.ema:
            self.ema.module.load_state_dict(state.ema)
        state.restore_random()

    def save(self, state: TrainingState) -> None:
        """Write everything that the rest of the training depends on."""
        state.model = self.model.state_dict()
        state.optimizer = self.optimizer.state_dict()
        state.ema = self.ema.module.state_dict() if self.ema else {}
        state.save()

    def train_one_epoch(self, state: TrainingState, bar: tqdm) -> None:
        """Train the rest of the epoch that `state` is in, saving now and then."""
        training, start = self.params.training, time.monotonic()
        saved = start
        self.batches.epoch, self.batches.start = state.epoch, state.step
        self.model.train()
        for images, labels in self.train_loader:
            step = state.epoch * len(self.batches) + state.step
            lr = compute_lr(training, step, len(self.batches))
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            loss = train_on_batch(
                self.model, images, labels, self.loss, self.optimizer, self.device, self.autocast
            )
            if self.ema:
                self.ema.update(self.model, step)
            state.step += 1
            state.loss_sum += loss
            bar.update()
            if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                saved = time.monotonic()
                state.seconds += saved - start
                start = saved
                self.save(state)
        state.seconds += time.monotonic() - start

    def finish_epoch(self, state: TrainingState) -> None:
        """Validate, record the epoch, keep the best weights, decide whether to stop."""
        start, training = time.monotonic(), self.params.training
        scored = self.ema.module if self.ema else self.model
        logits = run_batches(scored, self.val_loader)
        labels = self.data.labels[self.val_rows]
        accuracy = float(np.mean(logits.argmax(axis=1) == labels))
        if accuracy > state.best_accuracy:
            state.best_accuracy, state.best_epoch = accuracy, state.epoch + 1
            state.best_weights = {k: v.detach().cpu().clone() for k, v in scored.state_dict().items()}
        state.seconds += time.monotonic() - start
        state.history.append(
            {
                "epoch": state.epoch + 1,
                "lr": self.optimizer.param_groups[0]["lr"],
                "train_loss": state.loss_sum / len(self.batches),
                "val_loss": self._compute_val_loss(logits, labels),
                "val_accuracy": accuracy,
                "seconds": state.seconds,
            }
        )
        state.epoch, state.step, state.loss_sum = state.epoch + 1, 0, 0.0
        waited = state.epoch - state.best_epoch
        state.finished = state.epoch >= training.epochs or waited >= training.patience

    def _compute_val_loss(self, logits: np.ndarray, labels: np.ndarray) -> float:
        return float(self.loss(torch.from_numpy(logits), torch.from_numpy(labels.astype(np.int64))))

    def describe(self, state: TrainingState, history: pd.DataFrame) -> dict[str, Any]:
        """Return the checkpoint's config."""
        best = history.set_index("epoch").loc[state.best_epoch]
        return {
            "architecture": self.params.training.architecture,
            "emotions": list(self.data.emotions),
            "preprocessing": self.preprocessing.to_dict(),
            "initial_weights": self.initial.to_dict(),
            "params": self.params.model_dump(mode="json", include={"training", "augmentation"}),
            "dataset": self.data.meta["dataset"],
            "data_hash": self.data.data_hash,
            "framing": self.data.meta.get("framing"),
            "git_commit": state.git_commit,
            "device": self.device.type,
            "best_epoch": state.best_epoch,
            "metrics": {"val.accuracy": float(best.val_accuracy), "val.loss": float(best.val_loss)},
        }


def train_on_batch(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    loss_function: Loss,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    autocast: torch.dtype | None,
) -> float:
    """Take one optimiser step on images (N, 3, S, S) and labels (N,); return the loss."""
    images = images.to(device, memory_format=torch.channels_last, non_blocking=True)
    labels = labels.to(device, non_blocking=True)
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
        logits = model(images)
    loss = loss_function(logits, labels)
    loss.backward()
    optimizer.step()
    value = loss.item()
    if not math.isfinite(value):
        raise ModelError(f"training diverged: the loss is {value}; lower training.lr or raise warmup_steps")
    return value


def compute_lr(training: TrainingParams, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of `step` (from 0): linear warm-up, then constant or half a cosine to 0."""
    if step < training.warmup_steps:
        return training.lr * (step + 1) / training.warmup_steps
    if training.schedule == "constant":
        return training.lr
    total = training.epochs * steps_per_epoch
    progress = (step - training.warmup_steps) / max(1, total - training.warmup_steps)
    return training.lr * 0.5 * (1 + math.cos(math.pi * progress))


def build_ema(model: nn.Module, decay: float) -> ModelEmaV3 | None:
    """Return the running average of `model`'s weights, or None when `decay` is 0."""
    if not decay:
        return None
    return ModelEmaV3(model, decay=decay, use_warmup=True, warmup_power=EMA_WARMUP_POWER)


def choose_precision(precision: str, architecture: str, device: torch.device) -> torch.dtype | None:
    """Return the dtype to autocast to, or None for float32.

    `auto` on a GPU is bfloat16. On a CPU it was measured (benchmarks/training.py): with AMX bfloat16 makes
    ResNets faster, but halves the speed of EfficientNets, whose depthwise convolutions AMX does not help.
    """
    if precision == "auto":
        has_amx: Callable[[], bool] = torch.cpu._is_amx_tile_supported
        fast = device.type == "cuda" or (architecture.startswith("resnet") and has_amx())
        precision = "bfloat16" if fast else "float32"
    return torch.bfloat16 if precision == "bfloat16" else None


def _describe_last(history: list[dict[str, float]]) -> str:
    last = history[-1]
    return f"val loss {last['val_loss']:.3f}, accuracy {last['val_accuracy']:.3f}"
