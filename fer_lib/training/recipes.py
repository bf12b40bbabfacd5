"""Trainings besides the paper's: each a named set of changes to `training` and `augmentation`."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from fer_lib.data.packed import PackedDataset, load_packed
from fer_lib.errors import ModelError
from fer_lib.files import hold_lock, write_atomically
from fer_lib.metrics_file import read_metrics, write_metrics
from fer_lib.models.build import Checkpoint, save_checkpoint
from fer_lib.params import Params, Recipe, apply_recipe, find_recipe, load_params
from fer_lib.paths import OutputDirs, get_output_dirs
from fer_lib.training.fit import FitResult, fit
from fer_lib.training.targets import has_votes

BASELINE = "baseline"
"""The checkpoint of the paper's own recipe, which stage `training` writes."""

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


def train_recipe(name: str, dataset: str, out_dir: str | Path | None = None) -> Path:
    """Train recipe `name` of `params.yaml` on `dataset`; return the folder of its checkpoint.

    Writes `models/<dataset>/<name>`, `metrics/recipes/<name>.json` and `recipes/<name>.csv`, one row an
    epoch. Killed and started again, the training goes on. Raises ParamsError for a recipe that is not there,
    FerError when another run trains it, and whatever `fit` raises.
    """
    dirs = get_output_dirs(dataset, out_dir)
    params = build_recipe(name, load_params(dataset), dirs)
    data = load_packed(dataset)
    params = use_known_targets(params, data)
    state = dirs.training_state / name
    with hold_lock(state / "lock"):
        result = fit(data, params, state)
    folder = dirs.models / name
    save_checkpoint(folder, result.model, result.config)
    table = result.history.drop(columns="seconds").to_csv(index=False, float_format="%.6g")
    write_atomically(dirs.reports / "recipes" / f"{name}.csv", table.encode())
    seconds = result.history["seconds"].iloc[-1]
    metrics = describe_training(result)
    write_metrics(dirs, f"recipes/{name}", metrics, data.meta, params, params.training.seed, seconds)
    return folder


def build_recipe(name: str, params: Params, dirs: OutputDirs) -> Params:
    """Return `params` with recipe `name` applied: what it starts from and its teacher are files in `dirs`."""
    recipe = find_recipe(params, name)
    changed = apply_recipe(params, recipe)
    files: dict[str, object] = {}
    if recipe.start is not None:
        files |= {"weights": "file", "weights_file": dirs.models / recipe.start}
    if recipe.teacher is not None:
        name = TEACHER_NAME if recipe.teacher == ENSEMBLE else recipe.teacher
        files["teacher"] = dirs.models / name
    return changed.model_copy(update={"training": changed.training.model_copy(update=files)})


def use_known_targets(params: Params, data: PackedDataset) -> Params:
    """Return `params`; where it blends labels with votes and `data` have none, with labels alone."""
    if params.training.targets != "blend" or has_votes(data.index):
        return params
    print(f"{data.meta['dataset']}: no FER+ votes beside the faces; training on the labels alone")
    return params.model_copy(update={"training": params.training.model_copy(update={"targets": "label"})})


def check_match(checkpoint: Checkpoint, data: PackedDataset) -> None:
    """Raise ModelError unless `data` are the ones the checkpoint was trained on: the same faces and splits.

    Packed anew, a face may have moved from training to test; a score on such a test split is worth nothing.
    """
    trained_on, found = checkpoint.config["data_hash"], data.data_hash
    if trained_on != found:
        raise ModelError(
            f"checkpoint and data differ: trained on data hash {trained_on[:12]}, found {found[:12]}; "
            "train again on these data"
        )


def describe_training(result: FitResult) -> dict[str, object]:
    """Return the metrics of a finished training: the selected epoch's, the recipe, and every epoch's."""
    best = result.history.set_index("epoch").loc[result.best_epoch]
    metrics = {
        "val.accuracy": best["val_accuracy"],
        "val.loss": best["val_loss"],
        "train.loss": best["train_loss"],
        "architecture": result.config["architecture"],
        "best_epoch": result.best_epoch,
        "epochs": len(result.history),
        "n_parameters": sum(parameter.numel() for parameter in result.model.parameters()),
        "image_size": result.config["preprocessing"]["image_size"],
        "initial_weights": result.config["initial_weights"]["source"],
        "trained_at_commit": result.config["git_commit"],
        "precision": result.config["precision"],
    }
    settings = result.config["params"]["training"]
    metrics |= {f"recipe.{key}": settings[key] for key in ("lr", "schedule", "epochs", "dropout", "patience")}
    for row in result.history.itertuples():
        for key in ("train_loss", "val_loss", "val_accuracy"):
            metrics[f"epoch_{row.epoch}.{key}"] = getattr(row, key)
        metrics[f"epoch_{row.epoch}.seconds"] = round(row.seconds, 1)
    return metrics


def get_metrics_name(name: str) -> str:
    """Return the name of the metrics that the training of network `name` wrote."""
    return "training" if name == BASELINE else f"recipes/{name}"


def list_training_seconds(name: str, params: Params, dirs: OutputDirs) -> dict[str, float]:
    """Return the seconds of every training behind network `name`: its own, its start's, its teachers'.

    By the clock of the machine that trained, as the metrics say. Raises FerError where those are missing.
    """
    recipe = params.recipes.get(name, Recipe())
    seconds = {name: read_metrics(dirs, get_metrics_name(name)).provenance["wall_seconds"]}
    teachers = params.ensemble.members if recipe.teacher == ENSEMBLE else (recipe.teacher,)
    for other in filter(None, (recipe.start, *teachers)):
        seconds = list_training_seconds(other, params, dirs) | seconds
    return seconds


def tabulate_settings(trainings: Mapping[str, Mapping[str, object]]) -> pd.DataFrame:
    """Return what trainings differ in, as a reader sees it: one row per setting, one column per network.

    trainings: network to the section `training` that it was trained with.
    """
    table = pd.DataFrame(
        {name: {key: str(used[key]) for key in SETTINGS} for name, used in trainings.items()}
    )
    return table.rename(index=lambda key: key.replace("_", " ")).rename_axis("setting")


def read_time_curve(dirs: OutputDirs, name: str) -> pd.DataFrame:
    """Return seconds of training and validation accuracy after each epoch of network `name`."""
    metrics = read_metrics(dirs, get_metrics_name(name))
    epochs = range(1, metrics["epochs"] + 1)
    columns = ("seconds", "val_accuracy")
    return pd.DataFrame({key: [metrics[f"epoch_{n}.{key}"] for n in epochs] for key in columns})
