"""The stage `latency`: every form of every compressed network, timed side by side on this machine."""

import time
from pathlib import Path

from fer_lib.data.packed import load_packed
from fer_lib.deployment.compression import FLOAT, get_forms_dir
from fer_lib.deployment.latency import (
    Network,
    describe_machine,
    measure_memory,
    measure_times,
    summarise_times,
)
from fer_lib.errors import FerError
from fer_lib.metrics_file import read_metrics, write_metrics
from fer_lib.params import load_params
from fer_lib.paths import get_output_dirs
from fer_lib.provenance import hash_files


def time_forms(dataset: str, out_dir: str | Path | None = None) -> Path:
    """Write `metrics/latency.json`: times, speed-ups and peak memory; return its path.

    Speed-ups are over the parent in float (`parent`) and over the same network in float (`twin`).
    Raises FerError when a network has not been compressed.
    """
    start = time.monotonic()
    params, dirs, data = load_params(dataset), get_output_dirs(dataset, out_dir), load_packed(dataset)
    settings, networks, twins = params.compression, {}, {}
    for name in settings.networks:
        size = read_metrics(dirs, f"compression/{name}")["image_size"]
        files = sorted(get_forms_dir(dirs, name).glob("*.onnx"))
        if not files:
            raise FerError(f"{get_forms_dir(dirs, name)}: no forms; run `compress {name}` first")
        for file in files:
            networks[f"{name}.{file.stem}"] = Network(file, size)
            twins[f"{name}.{file.stem}"] = f"{name}.{FLOAT}"
    times = measure_times(networks, settings.threads, settings.rounds)
    parents = dict.fromkeys(networks, f"{settings.parent}.{FLOAT}")
    metrics: dict[str, object] = summarise_times(times, {"parent": parents, "twin": twins})
    metrics |= {f"time.{name}.peak_mib": measure_memory(network) for name, network in networks.items()}
    metrics |= {f"{name}.sha256": hash_files([network.path]) for name, network in networks.items()}
    metrics |= {"machine": describe_machine(), "rounds": settings.rounds}
    seconds = time.monotonic() - start
    write_metrics(dirs, "latency", metrics, data.meta, params, settings.seed, seconds)
    return dirs.metrics / "latency.json"
