"""Time networks side by side in one process.

Every round runs each network in turn, so that whatever else the machine does meets them alike. A ratio
is the median over runs of the two times of a run; its interval comes from a bootstrap over runs.
"""

import os
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from fer_lib.data.packed import load_packed
from fer_lib.deployment.memory import BATCHES, Network, measure_memory
from fer_lib.errors import FerError, ModelError
from fer_lib.inference.recognizer import INPUT
from fer_lib.inference.registry import find_checkpoint, list_variants
from fer_lib.intervals import Interval
from fer_lib.machine import describe_machine
from fer_lib.metrics_file import Metrics, build_key, read_metrics, write_metrics
from fer_lib.models.checkpoints import read_config
from fer_lib.onnx_session import open_session
from fer_lib.params import load_params
from fer_lib.paths import get_output_dirs
from fer_lib.provenance import hash_file

WARM_UP_RUNS = 3
RUNS_OF_ONE = 8
"""Runs of one face in a row in each round, as in a video; the first finds its weights out of cache."""

BENCH_ROUNDS = 30
N_RESAMPLES = 1000


def time_variants(dataset: str, out_dir: str | Path | None = None) -> Path:
    """Time every variant of every compressed network; return the table of the metrics, `latency`.

    Speed-ups are over each of `REFERENCES`. Raises FerError when a network has not been compressed.
    """
    # Here, because `run_bench` needs no torch.
    from fer_lib.deployment.compression import REFERENCES, find_reference, get_variants_dir

    start = time.monotonic()
    params, dirs, data = load_params(dataset), get_output_dirs(dataset, out_dir), load_packed(dataset)
    settings = params.compression
    networks: dict[str, Network] = {}
    for name in settings.networks:
        size = read_metrics(dirs, f"compression/{name}")["image_size"]
        files = sorted(get_variants_dir(dirs, name).glob("*.onnx"))
        if not files:
            raise FerError(f"{get_variants_dir(dirs, name)}: no variants; run `compress {name}` first")
        networks |= {f"{name}.{file.stem}": Network(file, size) for file in files}
    references = {
        title: {name: find_reference(name, title, settings) for name in networks} for title in REFERENCES
    }
    metrics = Metrics("latency")
    times = measure_times(networks, settings.threads, settings.rounds)
    add_times(metrics, times, references)
    for name, network in networks.items():
        metrics.add("time.peak_mib", measure_memory(network), model=name)
        metrics.describe(f"{name}.sha256", hash_file(network.path))
    metrics.describe("machine", describe_machine())
    metrics.describe("rounds", settings.rounds)
    write_metrics(dirs, metrics, data.meta, params, settings.seed, time.monotonic() - start)
    return dirs.get_table("latency")


def run_bench(model: str | Path, rounds: int = BENCH_ROUNDS) -> str:
    """Return a table as text: for every variant of a model its times on one thread and on all, its memory
    and its accuracy.

    Raises ModelError for a model that is not there or was not exported.
    """
    folder = find_checkpoint(model)
    variants = list_variants(read_config(folder))
    networks = {
        name: Network(folder / variant["file"], variant["preprocessing"]["image_size"])
        for name, variant in variants.items()
        if "file" in variant and (folder / variant["file"]).is_file()
    }
    if not networks:
        raise ModelError(
            f"{folder}: expected an exported network, found none; run `python -m fer_lib release`"
        )
    first, threads, metrics = next(iter(networks)), sorted({1, os.cpu_count() or 1}), Metrics("bench")
    add_times(metrics, measure_times(networks, threads, rounds), {"first": dict.fromkeys(networks, first)})
    table = {}
    for name, network in networks.items():
        row = {"MB": f"{network.path.stat().st_size / 1e6:.1f}"}
        for n_threads in threads:
            for batch in BATCHES:
                split, head = name_run(n_threads, batch), f"{n_threads} x {batch}"
                row[head] = f"{metrics[build_key('time.ms', name, split)]:.2f} ms"
                row[f"p95 {head}"] = f"{metrics[build_key('time.ms_p95', name, split)]:.2f}"
                row[f"speed {head}"] = f"{metrics.interval(build_key('time.speedup.first', name, split)):.2f}"
        row["MiB"] = f"{measure_memory(network):.0f}"
        accuracy = variants[name].get("metrics", {}).get("test.accuracy")
        row["test accuracy"] = f"{accuracy:.1%}" if accuracy is not None else "–"
        table[name] = row
    frame = pd.DataFrame(table).rename_axis("threads x batch")
    return (
        f"{folder.name} on {describe_machine()}, ONNX Runtime: milliseconds per face, median and 95th "
        f"percentile of {rounds} rounds in turn; speed: times as fast as {first}, with its interval; "
        f"MiB: peak memory\n\n{frame.to_string()}"
    )


def name_run(threads: Hashable, batch: Hashable) -> str:
    """Return what stands for a number of threads and of faces in the key of a time."""
    return f"threads_{threads}.batch_{batch}"


def measure_times(networks: Mapping[str, Network], threads: Sequence[int], rounds: int) -> pd.DataFrame:
    """Return seconds per face: one row per run; columns one per network, threads and batch.

    In each round a network runs once, and `RUNS_OF_ONE` times in a row where it is shown a single face.
    """
    rng, frames = np.random.default_rng(0), []
    for n_threads in threads:
        sessions = {name: open_session(network.path, n_threads) for name, network in networks.items()}
        for batch in BATCHES:
            runs = {}
            for name, session in sessions.items():
                shape = (batch, 3, networks[name].image_size, networks[name].image_size)
                runs[name] = partial(session.run, None, {INPUT: rng.standard_normal(shape, np.float32)})
            frame = time_in_turn(runs, rounds, RUNS_OF_ONE if batch == 1 else 1) / batch
            frames.append(frame.assign(threads=n_threads, batch=batch))
    return pd.concat(frames, ignore_index=True)


def time_in_turn(runs: Mapping[str, Callable[[], object]], rounds: int, in_a_row: int = 1) -> pd.DataFrame:
    """Return the seconds of each call, one column per name, one row per call; each is warmed up first.

    In every round each is called `in_a_row` times, then the next.
    """
    for run in runs.values():
        for _ in range(WARM_UP_RUNS):
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in tqdm(range(rounds), desc="time", unit="round", leave=False, disable=None):
        for name, run in runs.items():
            for _ in range(in_a_row):
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    return pd.DataFrame(times)


def add_times(metrics: Metrics, times: pd.DataFrame, references: Mapping[str, Mapping[str, str]]) -> None:
    """Add medians, 95th percentiles and speed-ups to `metrics`, by network and `name_run`.

    Metrics: `time.ms` and `time.ms_p95` per face; with 95% intervals, `time.faces_per_second` and
    `time.speedup.<name>`, how many times as fast a network is as its reference: `references` holds, for each
    name, network to the one that it is compared with. `times` are of `measure_times`.
    """
    for (threads, batch), group in times.groupby(["threads", "batch"]):
        columns = group.drop(columns=["threads", "batch"])
        draws = np.random.default_rng(0).integers(0, len(group), (N_RESAMPLES, len(group)))
        split = name_run(threads, batch)
        for name in map(str, columns):
            seconds = columns[name]
            median, low, high = _measure_median(seconds, draws)
            metrics.add("time.ms", 1e3 * median, model=name, split=split)
            metrics.add("time.ms_p95", 1e3 * float(seconds.quantile(0.95)), model=name, split=split)
            speed = Interval(1 / median, 1 / high, 1 / low)
            metrics.add("time.faces_per_second", speed, model=name, split=split)
            for title, reference_of in references.items():
                speedup = _measure_median(columns[reference_of[name]] / seconds, draws)
                metrics.add(f"time.speedup.{title}", speedup, model=name, split=split)


def _measure_median(values: pd.Series, draws: np.ndarray) -> Interval:
    low, high = np.quantile(np.median(values.to_numpy()[draws], axis=1), [0.025, 0.975])
    return Interval(float(values.median()), float(low), float(high))
