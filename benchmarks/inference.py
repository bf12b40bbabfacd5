"""The variants of the released model in ONNX Runtime, PyTorch and OpenVINO, side by side: time and accuracy.

OpenVINO, whose own int8 comes from NNCF, is the extra `openvino`; without it those rows are left out.
Accuracy needs the packed data set that the model was trained on; faces to calibrate on come from its training
split.

    python benchmarks/inference.py [--model photographs] [--dataset fer2013] [--threads 2]
"""

import argparse
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from fer_lib.data.packed import load_packed
from fer_lib.deployment.compression import load_images
from fer_lib.deployment.latency import BATCHES, RUNS_OF_ONE, time_in_turn
from fer_lib.evaluation.bootstrap import Bootstrap
from fer_lib.evaluation.metrics import summarise_gain
from fer_lib.inference.recognizer import INPUT
from fer_lib.inference.registry import DEFAULT_MODEL, find_checkpoint, list_variants
from fer_lib.machine import describe_machine
from fer_lib.models.build import load_exported
from fer_lib.models.checkpoints import read_config
from fer_lib.models.preprocessing import Preprocessing
from fer_lib.onnx_session import open_session
from fer_lib.training.voting import compute_softmax

ROUNDS, N_CALIBRATION = 30, 128
Run = Callable[[np.ndarray], np.ndarray]


def open_onnx(path: Path, threads: int) -> Run:
    session = open_session(path, threads)
    return lambda images: session.run(None, {INPUT: images})[0]


def open_torch(path: Path, config: dict[str, Any], threads: int) -> Run:
    torch.set_num_threads(threads)
    model = load_exported(path, config).model

    @torch.inference_mode()
    def run(images: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(images).to(memory_format=torch.channels_last)).numpy()

    return run


def open_openvino(path: Path, threads: int, calibration: np.ndarray | None = None) -> Run:
    import openvino

    model = openvino.Core().read_model(path)
    if calibration is not None:
        import nncf

        faces = nncf.Dataset([calibration[i : i + 1] for i in range(len(calibration))])
        model = nncf.quantize(
            model, faces, preset=nncf.QuantizationPreset.MIXED, subset_size=len(calibration)
        )
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = openvino.compile_model(model, "CPU", settings)
    return lambda images: compiled(images)[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--dataset", default="fer2013")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    folder, data = find_checkpoint(options.model), load_packed(options.dataset)
    config, rng = read_config(folder), np.random.default_rng(0)
    if config["data_hash"] != data.data_hash:
        parser.error(f"{options.model} was trained on other data than {options.dataset}; name those")
    rows, labels = data.get_rows("test"), data.labels[data.get_rows("test")]
    calibration = np.sort(rng.choice(data.get_rows("train"), N_CALIBRATION, replace=False))
    ways: dict[str, tuple[Run, Preprocessing]] = {}
    singles = {name: variant for name, variant in list_variants(config).items() if "file" in variant}
    for name, variant in singles.items():
        preprocessing, path = Preprocessing.from_dict(variant["preprocessing"]), folder / variant["file"]
        ways[f"{name}, ONNX Runtime"] = open_onnx(path, options.threads), preprocessing
        if name == "float":
            ways["float, PyTorch"] = open_torch(path, variant, options.threads), preprocessing
        if find_spec("openvino"):
            ways[f"{name}, OpenVINO"] = open_openvino(path, options.threads), preprocessing
        if name == "float" and find_spec("nncf"):
            faces = load_images(data, calibration, preprocessing)
            ways["float to int8 by NNCF, OpenVINO"] = (
                open_openvino(path, options.threads, faces),
                preprocessing,
            )
    first, predicted, table = next(iter(ways)), {}, {}
    bootstrap = Bootstrap(len(rows), n_resamples=1000, seed=0, clusters=data.persons[rows])
    for name, (run, preprocessing) in ways.items():
        parts = np.array_split(rows, len(rows) // 64)
        predicted[name] = compute_softmax(
            np.concatenate([run(load_images(data, p, preprocessing)) for p in parts])
        )
        table[name] = {"test accuracy": f"{(predicted[name].argmax(axis=1) == labels).mean():.3f}"}
        if name != first:
            gain, _ = summarise_gain(labels, predicted[name], predicted[first], bootstrap)
            table[name]["gain"] = f"{gain:+.3f}"
    for batch in BATCHES:
        shown = {
            name: rng.standard_normal((batch, 3, p.image_size, p.image_size), np.float32)
            for name, (_, p) in ways.items()
        }
        calls = {name: partial(run, shown[name]) for name, (run, _) in ways.items()}
        times = time_in_turn(calls, ROUNDS, RUNS_OF_ONE if batch == 1 else 1) / batch
        for name in ways:
            ratio = (times[first] / times[name]).median()
            median, tail = 1e3 * times[name].quantile([0.5, 0.95])
            table[name][f"ms, batch {batch}"] = f"{median:.2f} ({tail:.2f}), {ratio:.2f}x"
    print(f"{options.model} on {describe_machine()}, {options.threads} threads, {ROUNDS} rounds in turn")
    print(
        f"ms per face: median (95th percentile), how many times as fast as {first}; gain over its accuracy\n"
    )
    print(pd.DataFrame(table).T.fillna("").to_string())


if __name__ == "__main__":
    main()
