"""Train every network of a data set, side by side."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from fer_lib.data.packed import load_packed
from fer_lib.jobs import run_side_by_side
from fer_lib.param_sections import Recipe
from fer_lib.params import load_params
from fer_lib.training.recipes import BASELINE, ENSEMBLE, find_untrainable, train_recipe, write_teacher


def train_networks(dataset: str, out_dir: str | Path | None = None) -> list[str]:
    """Train `baseline` and every recipe of `params.yaml` on `dataset`; return their names.

    Each begins as soon as what it starts from and learns from is there; see `train_recipe`. Killed and
    started again, all go on where they were; what has not changed is not trained again. Recipes that these
    faces cannot train are left out.
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
    run_side_by_side(jobs, "networks", needs)
    return list(recipes)
