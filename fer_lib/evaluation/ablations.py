"""Run ablation studies: trainings of equal budget, each a reference with a change that answers a question.

A study is one question (the loss, the augmentation, ...), its arms are the answers tried; an arm is one entry
of `params.yaml`. Every arm runs once per seed; a seed also draws the share of the training faces, so an arm
and the reference of one seed saw the same ones. The studies that claims rest on change the paper's recipe and
have its epochs and all faces; the others explore with a few, against study `reference` or an arm `reference`
of their own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from fer_lib.data.packed import PackedDataset, load_packed
from fer_lib.errors import ParamsError
from fer_lib.evaluation.metrics import compute_metrics, group_probabilities
from fer_lib.evaluation.predictions import SPLITS, read_table, write_table
from fer_lib.files import hold_lock
from fer_lib.jobs import run_side_by_side
from fer_lib.metrics_file import Metrics, write_metrics
from fer_lib.models.preprocessing import Preprocessing
from fer_lib.params import Params, apply_recipe, load_params
from fer_lib.paths import PARAMS_FILE, OutputDirs, get_output_dirs
from fer_lib.training.recipes import BASELINE, build_recipe
from fer_lib.training.targets import has_votes
from fer_lib.training.voting import fit_weights, vote

REFERENCE = "reference"
"""The study that explorations are compared with, and in any study the arm that its others are."""

ENSEMBLE, VOTE = "ensemble", "soft_vote"
"""The study whose members also vote together, and the name of that arm."""

KEPT = ("accuracy", "macro.recall", "nll", "ece", "recall.")
"""Metrics of a run that its table keeps, by the beginning of their names."""


@dataclass(frozen=True)
class ArmRun:
    """One training of one arm.

    probabilities: split (val, test) to float64 (N, C), in row order.   numbers: what else it came to, such as
    its seconds.   commit: of the code that trained it.
    """

    arm: str
    seed: int
    probabilities: dict[str, np.ndarray]
    numbers: dict[str, float] = field(default_factory=dict)
    commit: str | None = None


def run_ablations(dataset: str, out_dir: str | Path | None = None, study: str | None = None) -> list[str]:
    """Train and score every arm of every study, or of one, with every seed; return the names of the studies.

    Arms that are the same training are trained once, and one that is a recipe's goes on from the recipe's
    finished state. Writes per study the metrics `ablations/<study>` (`<arm>.seed_<s>.<split>.<metric>`) and
    `ablations/<study>.parquet` (see `read_predictions`), as soon as its last arm is trained. Interrupted, it
    goes on where it was. Raises ParamsError for an unknown study.
    """
    params, dirs = load_params(dataset), get_output_dirs(dataset, out_dir)
    data, states = load_packed(dataset), dirs.training_state / "ablations"
    recipes = {name: build_recipe(name, params, dirs) for name in (BASELINE, *params.recipes)}
    studies = {name: find_arms(params, name) for name in params.ablations.list_studies()}
    asked = {study: find_arms(params, study)} if study else studies
    if not has_votes(data.index):  # then no arm can learn from them
        for name, arms in studies.items():
            studies[name] = {arm: own for arm, own in arms.items() if own.training.targets.label == 1}
    trainings: dict[str, Params] = {}  # of all studies: what two share has one place, whichever is asked for
    places: dict[str, dict[tuple[str, int], str]] = {name: {} for name in studies}
    for name, arms in studies.items():
        for arm, resolved in arms.items():
            for seed in params.ablations.seeds:
                own = set_seed(resolved, seed)
                place = find_same_training(own, trainings) or f"{name}/{arm}-{seed}"
                places[name][arm, seed], trainings[place] = place, own
    waiting = {name: places[name] for name in asked}
    jobs: dict[str, Callable[[], ArmRun]] = {}
    for place in dict.fromkeys(place for needed in waiting.values() for place in needed.values()):
        own = trainings[place]
        recipe = find_same_training(own, recipes)
        folder = dirs.training_state / recipe if recipe else states / place
        jobs[place] = partial(train_arm, dataset, own, folder)
    trained: dict[str, ArmRun] = {}

    def write_finished() -> None:
        for name in [name for name, needed in waiting.items() if trained.keys() >= set(needed.values())]:
            runs = [replace(trained[place], arm=arm) for (arm, _), place in waiting.pop(name).items()]
            _write_study(name, runs, params, dirs, data)

    def keep(place: str, run: ArmRun) -> None:
        trained[place] = run
        write_finished()

    run_side_by_side(jobs, "ablations", on_done=keep)
    write_finished()  # those that have no arms, when there was nothing to train
    return list(asked)


def _write_study(
    study: str, runs: list[ArmRun], params: Params, dirs: OutputDirs, data: PackedDataset
) -> None:
    seeds = params.ablations.seeds
    if study == ENSEMBLE and runs:
        runs = runs + [vote_together(runs, params.ablations.members, seed, data) for seed in seeds]
    write_table(get_predictions_path(dirs, study), _tabulate(runs, data), data)
    metrics = score_runs(f"ablations/{study}", runs, data)
    metrics.describe("seeds", ", ".join(map(str, seeds)))
    seconds = sum(run.numbers.get("seconds", 0.0) for run in runs)
    write_metrics(dirs, metrics, data.meta, params, seeds[0], seconds)


def set_seed(params: Params, seed: int) -> Params:
    """Return the parameters with another seed of the training."""
    return params.model_copy(update={"training": params.training.model_copy(update={"seed": seed})})


def find_same_training(own: Params, trainings: Mapping[str, Params]) -> str | None:
    """Return the name of the first training with the same parameters, and so the same network."""
    same = (own.training, own.augmentation)
    return next((name for name, p in trainings.items() if (p.training, p.augmentation) == same), None)


def train_arm(dataset: str, params: Params, state: Path) -> ArmRun:
    """Train an arm, whose parameters `params` are, and predict validation and test.

    state: folder of the training's state. Raises FerError when another run is at work there.
    """
    # Loaded by the process that trains: pages read results without it, in half the time.
    from fer_lib.training.fit import fit
    from fer_lib.training.predict import Predictor

    data, training = load_packed(dataset), params.training
    with hold_lock(state / "lock"):
        result = fit(data, params, state)
    preprocessing = Preprocessing.from_dict(result.config["preprocessing"])
    predictor = Predictor(result.model, preprocessing, training.batch_size * 2)
    probabilities = {split: predictor.predict(data.faces, data.get_rows(split)) for split in SPLITS}
    seconds = round(float(result.history["seconds"].iloc[-1]), 1)
    numbers = {"seconds": seconds, "best_epoch": result.best_epoch}
    return ArmRun(state.name, training.seed, probabilities, numbers, result.config["git_commit"])


def vote_together(runs: list[ArmRun], members: Sequence[str], seed: int, data: PackedDataset) -> ArmRun:
    """Return the soft vote of the members' runs of one seed, with the weights that fit validation best."""
    voters = [run for run in runs if run.seed == seed and run.arm in members]
    together = {split: np.stack([run.probabilities[split] for run in voters]) for split in SPLITS}
    weights = fit_weights(together["val"], data.labels[data.get_rows("val")])
    voted = {split: vote(probabilities, weights) for split, probabilities in together.items()}
    numbers = {f"weight.{run.arm}": float(weight) for run, weight in zip(voters, weights, strict=True)}
    return ArmRun(VOTE, seed, voted, numbers)


def score_runs(stage: str, runs: Sequence[ArmRun], data: PackedDataset) -> Metrics:
    """Return the metrics of `KEPT` of each run, as `<arm>.seed_<s>.<split>.<metric>`, and its numbers."""
    metrics = Metrics(stage)
    for run in runs:
        place = f"seed_{run.seed}"
        for name, number in run.numbers.items():
            metrics.add(name, number, model=run.arm, split=place)
        if run.commit is not None:
            metrics.describe(f"{run.arm}.{place}.trained_at_commit", run.commit)
        for split, probabilities in run.probabilities.items():
            labels = data.labels[data.get_rows(split)]
            scores = compute_metrics(labels, probabilities, data.emotions)
            kept = {name: score for name, score in scores.items() if name.startswith(KEPT)}
            metrics.add_scores(kept, model=run.arm, split=f"{place}.{split}", n=len(labels))
    return metrics


def _tabulate(runs: Sequence[ArmRun], data: PackedDataset) -> pd.DataFrame:
    rows = data.get_rows("test")
    columns: dict[str, np.ndarray] = {"row": rows, "label": data.labels[rows].astype(np.uint8)}
    for run in runs:
        emotions = run.probabilities["test"]
        groups = group_probabilities(emotions, data.emotions)
        for level, probabilities in (("emotion", emotions), ("group", groups)):
            columns[f"{run.arm}.{run.seed}.{level}"] = probabilities.argmax(axis=1).astype(np.uint8)
    return pd.DataFrame(columns)


def find_arms(params: Params, study: str) -> dict[str, Params]:
    """Return the arms of `study` with their parameters. Raises ParamsError for an unknown study."""
    studies = params.ablations.list_studies()
    if study not in studies:
        raise ParamsError(f"{PARAMS_FILE}: ablations: no study {study!r}; known: {', '.join(studies)}")
    found = studies[study]
    reference = apply_recipe(params, found.reference, found.place_of_reference)
    return {
        arm: apply_recipe(reference, changes, f"{found.place}.{arm}")
        for arm, changes in found.arms.items()
        if changes is not None
    }


def get_predictions_path(dirs: OutputDirs, study: str) -> Path:
    """Return where `run_ablations` writes the predictions."""
    return dirs.reports / "ablations" / f"{study}.parquet"


def read_predictions(
    dirs: OutputDirs, study: str, data: PackedDataset
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield for every arm its name, and its predicted emotions and groups, int (S, N): seeds, test faces.

    Raises DataError when the study has not run, or has run on other data than `data`.
    """
    table = read_table(get_predictions_path(dirs, study), data, "ablate")
    columns = table.drop(columns=["row", "label"])
    if columns.empty:  # this data set can have none of the study's arms
        return
    keys = columns.columns.str.rsplit(".", n=2, expand=True)
    for arm in keys.get_level_values(0).unique():
        chosen = columns.loc[:, keys.get_level_values(0) == arm].to_numpy(np.int64).T
        yield arm, chosen[0::2], chosen[1::2]
