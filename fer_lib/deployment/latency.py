"""How long networks take, how they compare and what memory they need, side by side in one process.

Every round runs each network in turn, so that whatever else the machine does meets them alike. A ratio
is the median over runs of the two times of a run; its interval comes from a bootstrap over runs.
"""

import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from fer_lib.errors import FerError
from fer_lib.inference.runtime import INPUT, open_session

BATCHES = (1, 32)
WARM_UP_RUNS = 3
RUNS_OF_ONE = 8
"""Runs of one face in a row in each round, as in a video; the first finds its weights out of cache."""

N_RESAMPLES = 1000


@dataclass(frozen=True)
class Network:
    """A file that ONNX Runtime opens, and the side in pixels of the faces it is shown."""

    path: Path
    image_size: int


def measure_times(
    networks: Mapping[str, Network], threads: Sequence[int], rounds: int, batches: Sequence[int] = BATCHES
) -> pd.DataFrame:
    """Return seconds per face: one row per run; columns threads, batch and one per network.

    In each round a network runs once, and `RUNS_OF_ONE` times in a row where it is shown a single face.
    """
    rng, frames = np.random.default_rng(0), []
    for n_threads in threads:
        sessions = {name: open_session(network.path, n_threads) for name, network in networks.items()}
        for batch in batches:
            shown = {
                name: {INPUT: rng.standard_normal((batch, 3, size, size), np.float32)}
                for name, size in ((name, network.image_size) for name, network in networks.items())
            }
            frame = time_in_turn(
                {name: partial(session.run, None, shown[name]) for name, session in sessions.items()},
                rounds,
                RUNS_OF_ONE if batch == 1 else 1,
            )
            frame /= batch
            frame.insert(0, "batch", batch)
            frame.insert(0, "threads", n_threads)
            frames.append(frame)
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


def summarise_times(times: pd.DataFrame, twins: Mapping[str, Mapping[str, str]]) -> dict[str, float]:
    """Return medians, 95th percentiles and speed-ups as metrics.

    Keys: `time.<network>.threads_<t>.batch_<b>.` and `ms`, `ms_p95`, `faces_per_second`; and, for each name
    in `twins`, `<name>.speedup`: how many times as fast as the network that it maps to. The latter two have
    95 % intervals, `_lo` and `_hi`.
    """
    metrics = {}
    for (threads, batch), group in times.groupby(["threads", "batch"]):
        columns = group.drop(columns=["threads", "batch"])
        draws = np.random.default_rng(0).integers(0, len(group), (N_RESAMPLES, len(group)))
        for name, seconds in columns.items():
            key = f"time.{name}.threads_{threads}.batch_{batch}"
            median = float(seconds.median())
            low, high = np.quantile(np.median(seconds.to_numpy()[draws], axis=1), [0.025, 0.975])
            metrics |= {
                f"{key}.ms": 1e3 * median,
                f"{key}.ms_p95": 1e3 * float(seconds.quantile(0.95)),
                f"{key}.faces_per_second": 1 / median,
                f"{key}.faces_per_second_lo": 1 / float(high),
                f"{key}.faces_per_second_hi": 1 / float(low),
            }
            for title, twin_of in twins.items():
                if name in twin_of:
                    ratios = (columns[twin_of[name]] / seconds).to_numpy()
                    low, high = np.quantile(np.median(ratios[draws], axis=1), [0.025, 0.975])
                    values = (float(np.median(ratios)), float(low), float(high))
                    ends = (f"{key}.{title}.speedup{end}" for end in ("", "_lo", "_hi"))
                    metrics |= dict(zip(ends, values, strict=True))
    return metrics


def measure_memory(network: Network) -> float:
    """Return what opening a network and showing it 32 faces adds to the peak memory of a process, in MiB.

    Measured in a process of its own. Raises FerError when that fails.
    """
    command = [sys.executable, "-m", "fer_lib.deployment.latency", str(network.path), str(network.image_size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FerError(
            f"{network.path}: its memory could not be measured: {done.stderr.strip().splitlines()[-1]}"
        )
    return float(done.stdout)


def describe_machine() -> str:
    """Return the processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _get_peak() -> float:
    status = Path("/proc/self/status")
    if (
        status.is_file()
    ):  # where it is, for the other counts what the parent process used before this one began
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    import resource  # which Windows does not have

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _print_memory(path: str, image_size: str) -> None:
    images = np.zeros((max(BATCHES), 3, int(image_size), int(image_size)), np.float32)
    before = _get_peak()
    open_session(Path(path), 1).run(None, {INPUT: images})
    print(_get_peak() - before)


if __name__ == "__main__":
    _print_memory(*sys.argv[1:])
