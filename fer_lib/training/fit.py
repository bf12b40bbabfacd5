"""Train a network: run epochs, keep the best, stop early, and go on where it was interrupted."""

import hashlib
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from fer_lib.data.packed import PackedDataset
from fer_lib.errors import ParamsError
from fer_lib.jobs import keep_freed_memory
from fer_lib.models.build import create_model
from fer_lib.models.networks import attach_hierarchical_head, count_macs, prune_channels
from fer_lib.models.preprocessing import Preprocessing
from fer_lib.models.weights import load_class_weights, load_initial_weights
from fer_lib.params import Params
from fer_lib.provenance import hash_code, hash_values
from fer_lib.training.curves import CURVES_NAME, Curves
from fer_lib.training.distributed import (
    check_alike,
    choose_device,
    gather_rows,
    get_rank,
    get_world_size,
    join_processes,
    seed_step,
    wrap_ddp,
)
from fer_lib.training.loading import (
    EpochBatches,
    FaceDataset,
    build_eval_batches,
    build_loader,
    compute_sampling_weights,
    select_train_rows,
)
from fer_lib.training.optim import (
    build_ema,
    build_loss,
    build_optimizer,
    compute_image_size,
    compute_lr,
    set_trainable,
)
from fer_lib.training.predict import View, run_batches
from fer_lib.training.state import TrainingState
from fer_lib.training.steps import choose_precision, compute_accuracy, train_on_batch
from fer_lib.training.targets import build_targets, choose_labels
from fer_lib.training.teacher import build_teachers
from fer_lib.training.transforms import TrainTransform, mix_batch

SAVE_EVERY_SECONDS = 60.0
"""An interruption costs at most about a minute of training."""

PACKAGE = Path(__file__).parents[1]
CODE = [PACKAGE / name for name in ("training", "models", "data/packed.py", "labels.py")]
"""All code that decides the trained weights; a change in any of it makes an older state void."""


@dataclass(frozen=True)
class FitResult:
    """A trained network and the record of its training.

    `history` has one row per epoch: epoch, lr, train_loss, val_loss, val_accuracy, seconds since the start.
    """

    model: nn.Module  # with the weights of the best epoch
    history: pd.DataFrame
    config: dict[str, Any]  # what `save_checkpoint` stores beside the weights

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights `model` holds, counted from 1."""
        return self.config["best_epoch"]


def fit(data: PackedDataset, params: Params, state_dir: Path, keeps_classes: bool = False) -> FitResult:
    """Train a network on the train split of `data`, selecting the epoch on its validation split.

    With `keeps_classes`, the classes that the network of `training.weights_file` knows start from what it
    knows of them; else each class is learned anew.

    The state is saved in `state_dir` about once a minute. Called again with the same data, parameters and
    code, `fit` goes on from there and ends with the same weights; with others it starts anew. To the bit that
    holds on one machine's CPU; a GPU adds up in no fixed order. Its curves are there to be watched with
    `tensorboard --logdir`.

    Processes that torchrun starts train one network together: each computes its share of every batch, and
    the first one writes. They end where one process does, up to rounding, other draws of dropout, and the
    pairs of mixup, which are of one share.

    Raises
    ------
    ModelError
        For weights or a teacher that are missing or do not fit, and when the loss is no longer finite.
    ParamsError, DataError
        For what the parameters ask of data that do not have it.
    """
    keep_freed_memory()
    with join_processes():
        run = _Run(data, params, choose_device(), keeps_classes)
        state = TrainingState.load_or_create(state_dir, run.compute_fingerprint())
        check_alike((state.fingerprint, state.epoch, state.step))
        if state.model:
            run.restore(state)
        total = params.training.epochs * len(run.batches)
        done = state.epoch * len(run.batches) + state.step
        hidden = {"disable": True} if get_rank() else {}
        shown = tqdm(total=total, initial=done, desc="train", unit="batch", dynamic_ncols=True, **hidden)
        with shown as bar, Curves(state_dir / CURVES_NAME, done, is_shown=not get_rank()) as run.curves:
            while not state.finished:
                bar.set_description(f"epoch {state.epoch + 1}/{params.training.epochs}")
                run.train_one_epoch(state, bar)
                run.finish_epoch(state)
                last = state.history[-1]
                bar.set_postfix_str(f"val loss {last['val_loss']:.3f}, accuracy {last['val_accuracy']:.3f}")
                run.save(state)
    run.model.load_state_dict(state.best_weights)
    return FitResult(run.model, pd.DataFrame(state.history), run.describe(state))


class _Run:
    """The parts that one training needs, built from the parameters alone."""

    curves: Curves

    def __init__(
        self, data: PackedDataset, params: Params, device: torch.device, keeps_classes: bool = False
    ):
        training = params.training
        if training.batch_size % get_world_size():
            raise ParamsError(
                f"training.batch_size: expected a multiple of {get_world_size()}, the processes, found "
                f"{training.batch_size}; change it"
            )
        torch.manual_seed(training.seed)
        self.data, self.params, self.device = data, params, device
        self.model = create_model(training.architecture, len(data.emotions), training.dropout)
        if training.head == "hierarchical":
            attach_hierarchical_head(self.model, data.emotions)
        prunes = training.macs < 1
        n_macs = training.macs * count_macs(self.model, training.image_size) if prunes else 0
        self.initial = load_initial_weights(
            self.model, training.architecture, training.weights, training.weights_file, with_head=prunes
        )
        self.keeps_classes = keeps_classes
        if keeps_classes and training.weights_file:
            load_class_weights(self.model, data.emotions, training.weights_file)
        if prunes:
            prune_channels(self.model, training.image_size, n_macs)
        self.preprocessing = Preprocessing(training.image_size, self.initial.mean, self.initial.std)
        self.teachers = build_teachers(training, data.emotions, self.preprocessing, device)
        self.model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = build_ema(self.model, training.ema_decay)
        self.optimizer = build_optimizer(self.model, training)
        rows, self.val_rows = select_train_rows(data, training), data.get_rows("val")
        if get_world_size() > 1 and min(len(rows), len(self.val_rows)) < training.batch_size:
            raise ParamsError(
                "training.batch_size: expected more faces than a batch to share; use one process"
            )
        self.targets = build_targets(data, training)
        self.labels = choose_labels(data, training.targets)
        self.loss = build_loss(training, self.targets[rows])
        self.autocast = choose_precision(training.precision, training.architecture, device)
        self.precision = str(self.autocast or torch.float32).removeprefix("torch.")
        weights = compute_sampling_weights(data, rows, training)
        self.batches = EpochBatches(rows, weights, training.batch_size, training.seed)
        self.train_loaders: dict[int, DataLoader] = {}
        untouched = FaceDataset(data.faces, View(self.preprocessing))
        own_rows = self.val_rows[get_rank() :: get_world_size()]
        self.val_loader = build_loader(untouched, build_eval_batches(own_rows, 2 * training.batch_size))

    def compute_fingerprint(self) -> str:
        """Return a hash of all that decides the result; a state of another one is void."""
        # Of the targets and weights themselves, for a file may change under its name.
        facts = {
            "data": self.data.data_hash,
            "targets": hashlib.sha256(np.ascontiguousarray(self.targets).tobytes()).hexdigest(),
            "initial": asdict(self.initial),
            "keeps_classes": self.keeps_classes,
            "teachers": [teacher.weights_sha256 for teacher in self.teachers],
            "params": self.params.model_dump(mode="json", include={"training", "augmentation"}),
            "code": hash_code(CODE),
            "libraries": [version(name) for name in ("albumentations", "timm", "torch")],
            "device": self.device.type,
            "precision": self.precision,
        }
        return hash_values(facts)

    def load_train_batches(self, image_size: int) -> DataLoader:
        """Return the loader of the training faces at this size; that of another size is dropped."""
        if image_size not in self.train_loaders:
            preprocessing = replace(self.preprocessing, image_size=image_size)
            augment = TrainTransform(preprocessing, self.params.augmentation)
            dataset = FaceDataset(self.data.faces, augment, self.targets)
            self.train_loaders = {image_size: build_loader(dataset, self.batches)}
        return self.train_loaders[image_size]

    def restore(self, state: TrainingState) -> None:
        """Continue from `state`."""
        self.model.load_state_dict(state.model)
        self.optimizer.load_state_dict(state.optimizer)
        if self.ema:
            self.ema.module.load_state_dict(state.ema)
        state.restore_random()

    def save(self, state: TrainingState) -> None:
        """Write everything that the rest of the training depends on."""
        if get_rank():
            return
        state.model = self.model.state_dict()
        state.optimizer = self.optimizer.state_dict()
        state.ema = self.ema.module.state_dict() if self.ema else {}
        state.save()

    def train_one_epoch(self, state: TrainingState, bar: tqdm) -> None:
        """Train the rest of the epoch that `state` is in, saving now and then."""
        training, saved = self.params.training, time.monotonic()
        self.batches.epoch, self.batches.start = state.epoch, state.step
        set_trainable(self.model, head_alone=state.epoch < training.head_epochs)
        model = wrap_ddp(self.model)
        for images, targets in self.load_train_batches(compute_image_size(training, state.epoch)):
            step = state.epoch * len(self.batches) + state.step
            seed_step(training.seed, step)
            lr = compute_lr(training, step, len(self.batches))
            for group in self.optimizer.param_groups:
                group["lr"] = lr * group.get("lr_scale", 1.0)
            if training.mixup:
                rng = np.random.default_rng([training.seed, step])
                images, targets = mix_batch(images, targets, training.mixup, rng)
            used = (self.loss, self.optimizer, self.device, self.autocast)
            share = training.targets.teacher / max(1, len(training.teachers))
            loss = train_on_batch(model, images, targets, *used, self.teachers, share)
            if self.ema:
                self.ema.update(self.model, step)
            self.curves.add(step + 1, {"loss/train": loss, "lr": lr})
            state.step += 1
            state.loss_sum += loss
            bar.update()
            now = time.monotonic()
            if now - saved > SAVE_EVERY_SECONDS:
                state.seconds += now - saved
                saved = now
                self.save(state)
        state.seconds += time.monotonic() - saved

    def finish_epoch(self, state: TrainingState) -> None:
        """Validate, record the epoch, keep the best weights, decide whether to stop."""
        start, training = time.monotonic(), self.params.training
        step = state.epoch * len(self.batches) + state.step - 1
        scored = self.ema.module if self.ema else self.model
        logits = torch.from_numpy(gather_rows(run_batches(scored, self.val_loader)))
        labels = torch.from_numpy(self.labels[self.val_rows])
        accuracy = compute_accuracy(logits, labels)
        if accuracy > state.best_accuracy:
            state.best_accuracy, state.best_epoch = accuracy, state.epoch + 1
            state.best_weights = {k: v.detach().cpu().clone() for k, v in scored.state_dict().items()}
        state.seconds += time.monotonic() - start
        state.history.append(
            {
                "epoch": state.epoch + 1,
                "lr": compute_lr(training, step, len(self.batches)),
                "train_loss": state.loss_sum / len(self.batches),
                "val_loss": float(self.loss(logits, labels)),
                "val_accuracy": accuracy,
                "seconds": state.seconds,
            }
        )
        state.epoch, state.step, state.loss_sum = state.epoch + 1, 0, 0.0
        last = state.history[-1]
        shown = {"loss/validation": last["val_loss"], "accuracy/validation": accuracy}
        self.curves.add(state.epoch * len(self.batches), shown)
        waited = state.epoch - state.best_epoch
        state.finished = state.epoch >= training.epochs or waited >= training.patience

    def describe(self, state: TrainingState) -> dict[str, Any]:
        """Return the checkpoint's config."""
        best = state.history[state.best_epoch - 1]
        return {
            "architecture": self.params.training.architecture,
            "head": self.params.training.head,
            "pruned": self.params.training.macs < 1,
            "emotions": list(self.data.emotions),
            "preprocessing": self.preprocessing.to_dict(),
            "initial_weights": asdict(self.initial),
            "params": self.params.model_dump(mode="json", include={"training", "augmentation"}),
            "dataset": self.data.meta["dataset"],
            "data_hash": self.data.data_hash,
            "framing": self.data.meta.get("framing"),
            "git_commit": state.git_commit,
            "device": self.device.type,
            "processes": state.processes,
            "precision": self.precision,
            "best_epoch": state.best_epoch,
            "metrics": {"val.accuracy": best["val_accuracy"], "val.loss": best["val_loss"]},
        }
