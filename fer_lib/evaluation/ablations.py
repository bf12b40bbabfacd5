"""Ablations: trainings at a small budget, each a reference with the change that answers one question.

A study is one question (the loss, the augmentation, ...), its arms are the answers tried. Every arm runs once
per seed; a seed also draws the share of the training faces, so an arm and the reference of one seed saw the
same ones. A study that the reference of all cannot answer has an arm `reference` of its own.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partialmethod
from multiprocessing import get_context, parent_process
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from fer_lib.data.packed import PackedDataset, load_packed
from fer_lib.errors import FerError, ParamsError
from fer_lib.evaluation.metrics import compute_metrics, group_probabilities
from fer_lib.files import hold_lock, write_atomically
from fer_lib.metrics_file import write_metrics
from fer_lib.models.preprocessing import Preprocessing
from fer_lib.params import Params, apply_recipe, load_params
from fer_lib.paths import PARAMS_FILE, OutputDirs, get_output_dirs
from fer_lib.training import fit
from fer_lib.training.ensemble import fit_weights, vote
from fer_lib.training.predict import compute_softmax, predict_logits
from fer_lib.training.targets import has_votes

REFERENCE = "reference"
"""The study, and its arm, that all others are compared with."""

ENSEMBLE, VOTE = "ensemble", "soft_vote"
"""The study whose members also vote together, and the name of that arm."""

KEPT = ("accuracy", "macro.recall", "nll", "ece", "recall.")
"""Metrics of a run that its file keeps, by the beginning of their names."""


@dataclass(frozen=True)
class ArmRun:
    """What one training of one arm came to.

    probabilities: split (val, test) to float64 (N, C), in row order.
    """

    arm: str
    seed: int
    metrics: dict[str, float | str]
    probabilities: dict[str, np.ndarray]


def run_study(study: str, dataset: str, out_dir: str | Path | None = None) -> Path:
    """Train and score every arm of `study` with every seed; return the table of predictions.

    One run per core at a time, each on one thread: small networks on small faces keep two threads busy half
    of the time. Writes `metrics/ablations/<study>.json` (`<arm>.seed_<s>.<split>.<metric>`) and
    `ablations/<study>.parquet` (see `read_predictions`). Interrupted, it goes on where it was.
    """
    params, dirs = load_params(dataset), get_output_dirs(dataset, out_dir)
    arms, seeds = find_arms(params, study), params.ablations.seeds
    data = load_packed(dataset)
    if not has_votes(data.index):  # then no arm can learn from them
        arms = {arm: resolved for arm, resolved in arms.items() if resolved.training.targets == "label"}
    plain = apply_recipe(params, params.ablations.reference)
    states = dirs.training_state / "ablations"
    with _start_pool() as pool:
        jobs: list[Future[ArmRun]] = []
        for arm, resolved in arms.items():
            # An arm that changes nothing is the reference, which is trained once for all studies.
            state_dir = states / REFERENCE / REFERENCE if resolved == plain else states / study / arm
            jobs += [pool.submit(train_arm, dataset, arm, resolved, seed, state_dir) for seed in seeds]
        try:
            with tqdm(as_completed(jobs), study, len(jobs), unit="run", dynamic_ncols=True) as done:
                runs = [job.result() for job in done]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    runs.sort(key=lambda run: (list(arms).index(run.arm), seeds.index(run.seed)))
    if study == ENSEMBLE:
        runs += [vote_together(runs, params.ablations.members, seed, data) for seed in seeds]
    path = get_predictions_path(dirs, study)
    rows = data.get_rows("test")
    table = pd.DataFrame({"row": rows, "label": data.labels[rows].astype(np.uint8)})
    for run in runs:
        emotions = run.probabilities["test"]
        groups = group_probabilities(emotions, data.emotions)
        for level, probabilities in (("emotion", emotions), ("group", groups)):
            table[f"{run.arm}.{run.seed}.{level}"] = probabilities.argmax(axis=1).astype(np.uint8)
    write_atomically(path, table.to_parquet(index=False, compression="zstd"))
    metrics = {f"{run.arm}.seed_{run.seed}.{key}": v for run in runs for key, v in run.metrics.items()}
    seconds = sum(value for key, value in metrics.items() if key.endswith(".seconds"))
    metrics["seeds"] = ", ".join(map(str, seeds))
    write_metrics(dirs, f"ablations/{study}", metrics, data.meta, params, seeds[0], seconds)
    return path


def train_arm(dataset: str, arm: str, params: Params, seed: int, state_dir: Path) -> ArmRun:
    """Train one arm, whose parameters `params` are, with one seed; score it on validation and test.

    The training's state stands in `<state_dir>-<seed>`. Raises FerError when another run is at work there.
    """
    training = params.training.model_copy(update={"seed": seed})
    data = load_packed(dataset)
    state = state_dir.with_name(f"{state_dir.name}-{seed}")
    with hold_lock(state / "lock"):
        result = fit(data, params.model_copy(update={"training": training}), state)
    preprocessing = Preprocessing.from_dict(result.config["preprocessing"])
    probabilities = {}
    for split in ("val", "test"):
        rows = data.get_rows(split)
        logits = predict_logits(result.model, data, rows, preprocessing, training.batch_size * 2)
        probabilities[split] = compute_softmax(logits)
    metrics = {
        "seconds": round(result.history["seconds"].iloc[-1], 1),
        "best_epoch": result.best_epoch,
        "trained_at_commit": result.config["git_commit"],
    }
    return ArmRun(arm, seed, metrics | _score(probabilities, data), probabilities)


def vote_together(runs: list[ArmRun], members: Sequence[str], seed: int, data: PackedDataset) -> ArmRun:
    """Return the soft vote of the members' runs of one seed, with the weights that fit validation best."""
    voters = [run for run in runs if run.seed == seed and run.arm in members]
    together = {split: np.stack([run.probabilities[split] for run in voters]) for split in ("val", "test")}
    weights = fit_weights(together["val"], data.labels[data.get_rows("val")])
    voted = {split: vote(probabilities, weights) for split, probabilities in together.items()}
    metrics = {f"weight.{run.arm}": float(weight) for run, weight in zip(voters, weights, strict=True)}
    return ArmRun(VOTE, seed, metrics | _score(voted, data), voted)


def _score(probabilities: dict[str, np.ndarray], data: PackedDataset) -> dict[str, float]:
    return {
        f"{split}.{key}": value
        for split, values in probabilities.items()
        for key, value in compute_metrics(data.labels[data.get_rows(split)], values, data.emotions).items()
        if key.startswith(KEPT)
    }


def find_arms(params: Params, study: str) -> dict[str, Params]:
    """Return the arms of `study` with their parameters. Raises ParamsError for an unknown study."""
    studies = params.ablations.studies
    if study not in studies:
        raise ParamsError(f"{PARAMS_FILE}: ablations.studies: no {study!r}; known: {', '.join(studies)}")
    reference = apply_recipe(params, params.ablations.reference)
    return {
        arm: apply_recipe(reference, changes, f"{study}.{arm}")
        for arm, changes in studies[study].items()
        if changes is not None
    }


def get_predictions_path(dirs: OutputDirs, study: str) -> Path:
    """Return where `run_study` writes the predictions."""
    return dirs.reports / "ablations" / f"{study}.parquet"


def read_predictions(
    dirs: OutputDirs, study: str, data: PackedDataset
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield for every arm its name, and its predicted emotions and groups, int (S, N): seeds, test faces.

    Raises FerError when the study has not run, or has run on other test faces than those of `data`.
    """
    path, rows = get_predictions_path(dirs, study), data.get_rows("test")
    dataset, out_dir = dirs.reports.name, dirs.reports.parents[1]
    command = f"python -m fer_lib ablate {study} --dataset {dataset} --out-dir {out_dir}"
    if not path.is_file():
        raise FerError(f"{path}: not found; run `{command}` first")
    table = pd.read_parquet(path)
    if not (np.array_equal(table["row"], rows) and np.array_equal(table["label"], data.labels[rows])):
        raise FerError(f"{path}: made from other test faces; run `{command}` again")
    columns = table.drop(columns=["row", "label"])
    if columns.empty:  # this data set can have none of the study's arms
        return
    keys = columns.columns.str.rsplit(".", n=2, expand=True)
    for arm in keys.get_level_values(0).unique():
        chosen = columns.loc[:, keys.get_level_values(0) == arm].to_numpy(np.int64).T
        yield arm, chosen[0::2], chosen[1::2]


def _start_pool() -> ProcessPoolExecutor:
    on_gpu = torch.cuda.is_available()
    n_workers = 1 if on_gpu else os.cpu_count() or 1
    return ProcessPoolExecutor(n_workers, get_context("spawn"), _start_worker, (on_gpu,))


def _start_worker(on_gpu: bool) -> None:
    # The study's bar counts runs; one per run would write over it. tqdm has read its environment by now.
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)
    # Killed, a study takes its workers along, or they would hold their trainings when it is started again.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if not on_gpu:
        import cv2

        torch.set_num_threads(1)
        cv2.setNumThreads(0)


def _end_with_parent() -> None:
    parent_process().join()
    os._exit(1)
