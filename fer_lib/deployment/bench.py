"""The command `bench`: what every form of a model takes on the machine of whoever asks."""

import os
from pathlib import Path

import pandas as pd

from fer_lib.deployment.latency import (
    BATCHES,
    Network,
    describe_machine,
    measure_memory,
    measure_times,
    summarise_times,
)
from fer_lib.errors import ModelError
from fer_lib.models.checkpoints import find_checkpoint, list_forms, read_config

ROUNDS = 30


def run_bench(model: str | Path, rounds: int = ROUNDS) -> str:
    """Return a table as text: for every form of `model` its times on one thread and on all, memory, accuracy.

    Raises ModelError for a model that is not there or was not exported.
    """
    folder = find_checkpoint(model)
    forms = {
        name: form
        for name, form in list_forms(read_config(folder)).items()
        if (folder / form["file"]).is_file()
    }
    if not forms:
        raise ModelError(
            f"{folder}: expected an exported network, found none; run `python -m fer_lib release`"
        )
    first, threads = next(iter(forms)), sorted({1, os.cpu_count() or 1})
    networks = {
        name: Network(folder / form["file"], form["preprocessing"]["image_size"])
        for name, form in forms.items()
    }
    found = summarise_times(
        measure_times(networks, threads, rounds), {"first": dict.fromkeys(networks, first)}
    )
    table = {}
    for name, form in forms.items():
        row = {"MB": f"{networks[name].path.stat().st_size / 1e6:.1f}"}
        for n_threads in threads:
            for batch in BATCHES:
                key, head = f"time.{name}.threads_{n_threads}.batch_{batch}", f"{n_threads} x {batch}"
                row[head] = f"{found[f'{key}.ms']:.2f} ms"
                row[f"p95 {head}"] = f"{found[f'{key}.ms_p95']:.2f}"
                row[f"speed {head}"] = "{:.2f} [{:.2f}, {:.2f}]".format(
                    *(found[f"{key}.first.speedup{end}"] for end in ("", "_lo", "_hi"))
                )
        row["MiB"] = f"{measure_memory(networks[name]):.0f}"
        accuracy = form["metrics"].get("test.accuracy")
        row["test accuracy"] = f"{accuracy:.1%}" if accuracy is not None else "–"
        table[name] = row
    frame = pd.DataFrame(table).rename_axis("threads x batch")
    return (
        f"{folder.name} on {describe_machine()}, ONNX Runtime: milliseconds per face, median and 95th "
        f"percentile of {rounds} rounds in turn; speed: times as fast as {first}, with its interval; "
        f"MiB: peak memory\n\n{frame.to_string()}"
    )
