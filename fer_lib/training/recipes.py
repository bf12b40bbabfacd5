"""Train by recipe: `baseline`, the paper's own, or named changes to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fer_lib.data.packed import PackedDataset, load_packed
from fer_lib.errors import ModelError
from fer_lib.files import hold_lock, write_atomically
from fer_lib.metrics_file import Metrics, read_metrics, write_metrics
from fer_lib.models.checkpoints import read_variant
from fer_lib.param_sections import Recipe, TargetShares
from fer_lib.params import Params, apply_recipe, find_recipe, load_params
from fer_lib.paths import OutputDirs, get_output_dirs
from fer_lib.training.targets import has_votes

if TYPE_CHECKING:
    from fer_lib.models.build import Checkpoint
    from fer_lib.training.fit import FitResult

BASELINE = "baseline"
"""The paper's recipe: the sections `training` and `augmentation` as they are."""

TEACHER_NAME = "teacher.parquet"

ENSEMBLE = "ensemble"
"""The teacher of a recipe that learns from the vote of `ensemble.members`."""

SETTINGS = (
    "architecture",
    "targets",
    "image_size",
    "epochs",
    "lr",
    "schedule",
    "loss",
    "label_smoothing",
    "sampler",
)
"""What a table of trainings shows."""

NAMED_SETTINGS = ("lr", "schedule", "epochs", "dropout", "patience")
"""What claims check: `recipe.lr` and so on, beside the metrics of a training."""


@dataclass(frozen=True)
class TrainingRecord:
    """What is known of a finished training without its weights."""

    history: pd.DataFrame  # as of `FitResult`
    config: dict[str, Any]  # `params`, `initial_weights` (source, name) and `device` of the checkpoint's
    metrics: Metrics  # as `describe_training` returns them


def build_recipe(name: str, params: Params, dirs: OutputDirs) -> Params:
    """Return `params` with recipe `name` applied: what it starts from and its teachers are files in `dirs`.

    Raises ParamsError for a recipe that is not there.
    """
    recipe = Recipe() if name == BASELINE else find_recipe(params, name)
    training = dict(recipe.training)
    if recipe.start is not None:
        training |= {"weights": "file", "weights_file": dirs.models / recipe.start}
    names = [TEACHER_NAME if teacher == ENSEMBLE else teacher for teacher in recipe.teachers]
    training["teachers"] = [dirs.models / teacher for teacher in names]
    return apply_recipe(params, recipe.model_copy(update={"training": training}))


def train_recipe(
    name: str,
    dataset: str,
    out_dir: str | Path | None = None,
    smoke: bool = False,
    data: PackedDataset | None = None,
) -> Path:
    """Train `baseline` or a recipe of `params.yaml` on `dataset`; return the folder of its checkpoint.

    Writes `models/<dataset>/<name>`, the metrics `recipes/<name>` and `recipes/<name>.csv`, one row an epoch.
    Killed and started again, the training goes on; finished, it only writes them again. `smoke` takes the
    parameters of a smoke run; `data` stand in place of all faces of `dataset`.

    Raises
    ------
    ParamsError
        For a recipe that is not there.
    FerError
        When another run trains it, and whatever `fit` raises.
    """
    # Loaded by the process that trains: pages read records without it, in half the time.
    from fer_lib.models.build import save_checkpoint
    from fer_lib.training.distributed import get_rank
    from fer_lib.training.fit import fit

    dirs, plain = get_output_dirs(dataset, out_dir), load_params(dataset, smoke=smoke)
    params = build_recipe(name, plain, dirs)
    data = load_packed(dataset) if data is None else data
    params = use_known_targets(params, data)
    state = dirs.training_state / name
    folder = dirs.models / name
    if get_rank():  # another process writes
        fit(data, params, state)
        return folder
    with hold_lock(state / "lock"):
        result = fit(data, params, state)
    save_checkpoint(folder, result.model, result.config)
    table = result.history.drop(columns="seconds").to_csv(index=False, float_format="%.6g")
    write_atomically(_get_history_path(dirs, name), table.encode())
    seconds = float(result.history["seconds"].iloc[-1])
    metrics = describe_training(result, get_metrics_name(name))
    # Not the recipe's own: the hash of the parameters can be computed again from `params.yaml` alone.
    seed, inputs = params.training.seed, [params.training.weights_file, *params.training.teachers]
    write_metrics(dirs, metrics, data.meta, plain, seed, seconds, inputs=list(filter(None, inputs)))
    return folder


def read_or_train(
    name: str,
    dataset: str,
    out_dir: str | Path | None = None,
    smoke: bool = False,
    data: PackedDataset | None = None,
) -> TrainingRecord:
    """Return the record of a training: under the pipeline the one that its stage wrote, else of a run now.

    A run by hand, in `scratch/` or in smoke mode, calls `train_recipe`, which trains only what has changed.
    With `out_dir`, the files `recipes/<name>` there are read. They are committed, so no checkpoint is needed.
    """
    dirs = get_output_dirs(dataset, out_dir)
    written = _get_history_path(dirs, name).is_file() and dirs.get_table(get_metrics_name(name)).is_file()
    if smoke or out_dir is None or not written:
        train_recipe(name, dataset, out_dir, smoke, data)
    metrics = read_metrics(dirs, get_metrics_name(name))
    history = pd.read_csv(_get_history_path(dirs, name))
    history["seconds"] = read_time_curve(dirs, name)["seconds"]
    params = build_recipe(name, load_params(dataset, smoke=smoke), dirs)
    config = {
        "params": params.model_dump(mode="json", include={"training", "augmentation"}),
        "initial_weights": {"source": metrics["initial_weights"], "name": metrics["initial_weights.name"]},
        "device": metrics["device"],
    }
    return TrainingRecord(history, config, metrics)


def use_known_targets(params: Params, data: PackedDataset) -> Params:
    """Return `params`; where it mixes labels with votes and `data` have none, the labels take their share."""
    shares = params.training.targets
    voted = shares.majority + shares.votes
    if not (shares.label and voted) or has_votes(data.index):
        return params
    print(f"{data.meta['dataset']}: no FER+ votes beside the faces; their share goes to the labels")
    targets = TargetShares(label=shares.label + voted, teacher=shares.teacher)
    return params.model_copy(update={"training": params.training.model_copy(update={"targets": targets})})


def find_untrainable(params: Params, data: PackedDataset) -> set[str]:
    """Return the recipes that these faces cannot train: without votes, those that learn from votes alone.

    And those that start from or learn from one of them.
    """
    lacking: set[str] = set()
    if has_votes(data.index):
        return lacking
    for name, recipe in params.recipes.items():
        shares = apply_recipe(params, recipe).training.targets
        if shares.are_votes_alone:
            lacking.add(name)
    while (
        found := {
            name for name, recipe in params.recipes.items() if lacking & {recipe.start, *recipe.teachers}
        }
        - lacking
    ):
        lacking |= found
    return lacking


def check_match(checkpoint: "Checkpoint", data: PackedDataset) -> None:
    """Raise ModelError when `data` are not the faces and splits that the checkpoint was trained on.

    Packed anew, a face may have moved from training to test; a score on such a test split is worth nothing.
    """
    trained_on, found = checkpoint.config["data_hash"], data.data_hash
    if trained_on != found:
        raise ModelError(
            f"checkpoint and data differ: trained on data hash {trained_on[:12]}, found {found[:12]}; "
            "train again on these data"
        )


def describe_training(result: "FitResult", stage: str) -> Metrics:
    """Return the metrics of a finished training: the selected epoch's, the recipe, and every epoch's.

    Numbers: `val.accuracy`, `val.loss`, `train.loss`, `best_epoch`, `epochs`, `n_parameters`, and per epoch
    `epoch_<n>.train_loss`, `.val_loss`, `.val_accuracy`, `.seconds`. The rest are facts.
    """
    metrics, config, settings = Metrics(stage), result.config, result.config["params"]["training"]
    epochs = result.history.to_dict("records")
    best = epochs[result.best_epoch - 1]
    metrics.add("accuracy", best["val_accuracy"], split="val")
    metrics.add("loss", best["val_loss"], split="val")
    metrics.add("loss", best["train_loss"], split="train")
    metrics.add("best_epoch", result.best_epoch)
    metrics.add("epochs", len(epochs))
    metrics.add("n_parameters", sum(parameter.numel() for parameter in result.model.parameters()))
    for row in epochs:
        for metric in ("train_loss", "val_loss", "val_accuracy", "seconds"):
            metrics.add(metric, row[metric], split=f"epoch_{row['epoch']}")
    facts = {
        "architecture": config["architecture"],
        "image_size": config["preprocessing"]["image_size"],
        "initial_weights": config["initial_weights"]["source"],
        "initial_weights.name": config["initial_weights"]["name"],
        "trained_at_commit": config["git_commit"],
        "precision": config["precision"],
        "device": config["device"],
        **{f"recipe.{key}": settings[key] for key in NAMED_SETTINGS},
    }
    for name, fact in facts.items():
        metrics.describe(name, fact)
    return metrics


def get_metrics_name(name: str) -> str:
    """Return the name of the metrics that the training of network `name` wrote."""
    return f"recipes/{name}"


def list_trainings(name: str, params: Params, dirs: OutputDirs) -> dict[str, tuple[float, str]]:
    """Return seconds and device of every training behind a network: its start's, its teachers', its own.

    By the clock of the machine that trained, as the metrics say. Raises FerError where those are missing.
    """
    recipe, metrics = params.recipes.get(name, Recipe()), read_metrics(dirs, get_metrics_name(name))
    trainings = {name: (metrics.provenance["wall_seconds"], metrics["device"])}
    teachers = [
        member
        for teacher in recipe.teachers
        for member in (params.ensemble.members if teacher == ENSEMBLE else (teacher,))
    ]
    weights_file = apply_recipe(params, recipe).training.weights_file
    if weights_file and weights_file.suffix == ".onnx":
        trainings = {
            key: tuple(value) for key, value in read_variant(weights_file)["trainings"].items()
        } | trainings
    for other in filter(None, (recipe.start, *teachers)):
        trainings = list_trainings(other, params, dirs) | trainings
    return trainings


def describe_budget(training: Mapping[str, Any], data: PackedDataset) -> str:
    """Return what a training with these settings saw: `5 epochs of 28,709 faces at 48 px`."""
    n_faces = np.bincount(data.labels[data.get_rows("train")])
    n_drawn = np.floor(n_faces * training["train_fraction"] + 1e-9).sum()  # the fraction is of each class
    epochs = f"{training['epochs']} epoch{'s' * (training['epochs'] > 1)}"
    return f"{epochs} of {n_drawn:,.0f} faces at {training['image_size']} px"


def describe_recipe(name: str, params: Params, data: PackedDataset) -> str:
    """Return a network and the budget of its recipe: `student, 6 epochs of 28,709 faces at 112 px`."""
    recipe = Recipe() if name == BASELINE else find_recipe(params, name)
    return f"{name}, {describe_budget(apply_recipe(params, recipe).training.model_dump(), data)}"


def describe_origin(name: str, params: Params) -> str:
    """Return in words which networks a network started from and learned from; "" where there are none."""
    recipe, parts = params.recipes.get(name, Recipe()), []
    weights_file = apply_recipe(params, recipe).training.weights_file
    if weights_file is not None:
        parts.append(f"started from the weights of `{weights_file}`")
    if recipe.start is not None:
        parts.append(f"started from `{recipe.start}`")
    members = ", ".join(f"`{member}`" for member in params.ensemble.members)
    taught = [f"the vote of {members}" if name == ENSEMBLE else f"`{name}`" for name in recipe.teachers]
    if taught:
        parts.append(f"learned from {' and '.join(taught)}")
    return f"`{name}` {' and '.join(parts)}" if parts else ""


def tabulate_settings(trainings: Mapping[str, Mapping[str, object]]) -> pd.DataFrame:
    """Return what trainings differ in, as a reader sees it: one row per setting, one column per network.

    `trainings` maps a network to the section `training` that it was trained with.
    """
    table = pd.DataFrame(
        {name: {key: _show_setting(used[key]) for key in SETTINGS} for name, used in trainings.items()}
    )
    return table.rename(index=lambda key: key.replace("_", " ")).rename_axis("setting")


def _show_setting(value: object) -> str:
    if isinstance(value, Mapping):  # shares of the targets
        return ", ".join(f"{share:.0%} {name}" for name, share in value.items() if share)
    return str(value)


def read_time_curve(dirs: OutputDirs, name: str) -> pd.DataFrame:
    """Return seconds since the start and validation accuracy after each epoch of network `name`."""
    metrics = read_metrics(dirs, get_metrics_name(name))
    epochs = range(1, round(metrics["epochs"]) + 1)
    columns = ("seconds", "val_accuracy")
    return pd.DataFrame({key: [metrics[f"epoch_{n}.{key}"] for n in epochs] for key in columns})


def _get_history_path(dirs: OutputDirs, name: str) -> Path:
    return dirs.reports / "recipes" / f"{name}.csv"
