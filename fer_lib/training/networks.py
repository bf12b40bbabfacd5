"""Train every network of a data set side by side, and let the ensemble's vote teach."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pandas as pd

from fer_lib.data.packed import load_packed
from fer_lib.errors import FerError
from fer_lib.files import write_atomically
from fer_lib.jobs import run_side_by_side
from fer_lib.models.build import load_checkpoint
from fer_lib.param_sections import Recipe
from fer_lib.params import load_params
from fer_lib.paths import get_output_dirs
from fer_lib.training.predict import FLIP, PLAIN, Predictor
from fer_lib.training.recipes import (
    BASELINE,
    ENSEMBLE,
    TEACHER_NAME,
    check_match,
    find_untrainable,
    train_recipe,
)
from fer_lib.training.voting import fit_weights, vote

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")


def train_networks(dataset: str, out_dir: str | Path | None = None, processes: int = 1) -> list[str]:
    """Train `baseline` and every recipe of `params.yaml` on `dataset`; return their names.

    Each begins as soon as what it starts from and learns from is there; see `train_recipe`. With several
    `processes`, torchrun starts that many for one network after the other. Killed and started again, all go
    on where they were; what has not changed is not trained again. Recipes that these faces cannot train are
    left out. Raises FerError when a network cannot be trained.
    """
    params = load_params(dataset)
    lacking = find_untrainable(params, load_packed(dataset))
    if lacking:
        print(f"{dataset}: no FER+ votes beside the faces; left out: {', '.join(sorted(lacking))}")
    recipes = {name: recipe for name, recipe in params.recipes.items() if name not in lacking}
    recipes |= {BASELINE: Recipe()}
    jobs: dict[str, Callable[[], Path]] = {
        name: partial(train_recipe, name, dataset, out_dir) for name in recipes
    }
    needs = {name: [other for other in (one.start, *one.teachers) if other] for name, one in recipes.items()}
    if any(ENSEMBLE in others for others in needs.values()):
        jobs = {ENSEMBLE: partial(write_teacher, dataset, out_dir), **jobs}
        needs[ENSEMBLE] = list(params.ensemble.members)
    if processes == 1:
        run_side_by_side(jobs, "networks", needs)
        return list(recipes)
    for name in TopologicalSorter({name: needs.get(name, []) for name in jobs}).static_order():
        if name == ENSEMBLE:
            write_teacher(dataset, out_dir)
        else:
            _run_torchrun(name, dataset, out_dir, processes)
    return list(recipes)


def _run_torchrun(name: str, dataset: str, out_dir: str | Path | None, processes: int) -> None:
    command = [*TORCHRUN, f"--nproc-per-node={processes}", "-m", "fer_lib", "train-recipe", name]
    command += ["--dataset", dataset, *([] if out_dir is None else ["--out-dir", str(out_dir)])]
    if subprocess.run(command, check=False).returncode:
        raise FerError(f"{name}: {processes} processes failed to train it; see the error above")


def write_teacher(dataset: str, out_dir: str | Path | None = None) -> Path:
    """Write `models/<dataset>/teacher.parquet`: row, and `probability_<emotion>` of every training face.

    The members' soft vote with the weights that fit validation best, each seeing a face and its mirror image.
    Raises ModelError when a member has not been trained, or was trained on other data.
    """
    params, dirs, data = load_params(dataset), get_output_dirs(dataset, out_dir), load_packed(dataset)
    train, val = data.get_rows("train"), data.get_rows("val")
    of_train, of_val = [], []
    for name in params.ensemble.members:
        checkpoint = load_checkpoint(dirs.models / name)
        check_match(checkpoint, data)
        predictor = Predictor(checkpoint.model, checkpoint.preprocessing, params.evaluation.batch_size)
        of_train.append(predictor.predict(data.faces, train, FLIP))
        of_val.append(predictor.predict(data.faces, val, PLAIN))
    weights = fit_weights(np.stack(of_val), data.labels[val])
    columns = [f"probability_{name}" for name in data.emotions]
    table = pd.DataFrame(vote(np.stack(of_train), weights).astype(np.float32), columns=columns)
    table.insert(0, "row", train)
    path = dirs.models / TEACHER_NAME
    write_atomically(path, table.to_parquet(index=False))
    return path
