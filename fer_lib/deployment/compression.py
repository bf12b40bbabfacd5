"""Compress a trained network to int8 and sparse variants, and predict validation and test with each.

The variants lie in `models/compressed/<dataset>/<network>/`, their logits in
`reports/<dataset>/compression/<network>.parquet`; later stages read the table instead of the networks.
"""

import shutil
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn.utils import prune

from fer_lib.data.packed import PackedDataset, load_packed
from fer_lib.deployment.export import (
    BATCH_SIZE,
    PLAIN_OPERATIONS,
    Quantizer,
    export_onnx,
    round_weights,
    scale_logits,
)
from fer_lib.evaluation.bootstrap import draw_rows
from fer_lib.evaluation.metrics import fit_temperature
from fer_lib.evaluation.predictions import SPLITS, hash_weights, read_table, write_table
from fer_lib.inference.recognizer import run_session
from fer_lib.jobs import run_side_by_side
from fer_lib.metrics_file import Metrics, write_metrics
from fer_lib.models.build import Checkpoint, load_checkpoint
from fer_lib.models.networks import count_macs
from fer_lib.models.preprocessing import Preprocessing, preprocess
from fer_lib.onnx_session import open_session
from fer_lib.params import load_params
from fer_lib.paths import OutputDirs, get_output_dirs
from fer_lib.provenance import hash_file
from fer_lib.study_sections import CompressionParams
from fer_lib.training.predict import Predictor
from fer_lib.training.recipes import ENSEMBLE, TEACHER_NAME, check_match

FLOAT, INT8, INT8_ALL = "float32", "int8", "int8_all"
"""Variants of a network: as trained; int8 but for gates and the layers that lose most; int8 throughout."""

REFERENCES = ("baseline", "float_reference")
"""What a variant is compared with; see `find_reference`."""


def compress_networks(dataset: str, out_dir: str | Path | None = None) -> list[str]:
    """Compress each of `compression.networks`, side by side; return their names. Raises as `compress`."""
    networks = load_params(dataset).compression.networks
    run_side_by_side({name: partial(compress, name, dataset, out_dir) for name in networks}, "compress")
    return list(networks)


def compress(network: str, dataset: str, out_dir: str | Path | None = None) -> Path:
    """Write every variant of a trained network and their predictions; return the folder of the variants.

    Matrices are rounded to half precision, then logits divided by the temperature that fits validation.
    Raises ModelError when the network has not been trained, or was trained on other data.
    """
    start = time.monotonic()
    params, dirs, data = load_params(dataset), get_output_dirs(dataset, out_dir), load_packed(dataset)
    settings, checkpoint = params.compression, load_checkpoint(dirs.models / network)
    check_match(checkpoint, data)
    folder, preprocessing = get_variants_dir(dirs, network), checkpoint.preprocessing
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    round_weights(checkpoint.model)
    checkpoint.model.float()
    rows = data.get_rows("val")
    logits = Predictor(checkpoint.model, preprocessing, BATCH_SIZE).predict_logits(data.faces, rows)
    temperature = fit_temperature(logits, data.labels[rows])
    scale_logits(checkpoint.model, temperature)
    facts = {
        "architecture": checkpoint.config["architecture"],
        "image_size": preprocessing.image_size,
        "macs": count_macs(checkpoint.model, preprocessing.image_size),
        "n_parameters": sum(parameter.numel() for parameter in checkpoint.model.parameters()),
        "weights_sha256": hash_weights(dirs.models / network),
        "trained_at_commit": checkpoint.config["git_commit"],
        **_describe_training(checkpoint.config),
    }
    metrics = Metrics(f"compression/{network}", facts)
    difference = export_onnx(checkpoint, folder / f"{FLOAT}.onnx", half=False)
    metrics.add("export.max_logit_difference", difference)
    metrics.add("temperature", temperature)
    layers = write_int8(folder, choose_calibration(data, preprocessing, settings), settings)
    metrics.describe("layers", list(layers["kind"]))
    metrics.describe("n_float_layers", int(layers["is_float"].sum()))
    for number, error in enumerate(layers["error"]):
        metrics.add("error", error, split=f"layer_{number}")
    if network == settings.baseline:
        write_sparse(folder, checkpoint, settings.sparsities)
    images = {split: load_images(data, data.get_rows(split), preprocessing) for split in SPLITS}
    predicted = {}
    for file in sorted(folder.glob("*.onnx")):
        session = open_session(file)
        predicted[file.stem] = {split: run_session(session, images[split], BATCH_SIZE) for split in images}
        metrics.add("bytes", file.stat().st_size, model=file.stem)
        metrics.describe(f"{file.stem}.sha256", hash_file(file))
    write_table(get_logits_path(dirs, network), _tabulate(predicted, data), data)
    seconds, inputs = time.monotonic() - start, [dirs.models / network]
    write_metrics(dirs, metrics, data.meta, params, settings.seed, seconds, inputs=inputs)
    return folder


def write_int8(folder: Path, images: np.ndarray, settings: CompressionParams) -> pd.DataFrame:
    """Write the int8 variants of the float network in `folder`, calibrated on float32 (N, 3, S, S) faces.

    Returns one row per layer: `kind`, `error` of the logits with it alone in int8, and `is_float`, whether
    the variant `int8` leaves it so: where that alone costs more than `settings.max_layer_error`, and the
    network is the better for it.
    """
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        shutil.copy(folder / f"{FLOAT}.onnx", work)
        quantizer = Quantizer.prepare(work / f"{FLOAT}.onnx", images, settings.percentile)
        layers = quantizer.measure_sensitivity(work)
        layers["is_float"] = layers["error"] > settings.max_layer_error
        quantizer.quantize(folder / f"{INT8}.onnx", operations=PLAIN_OPERATIONS)
        kept = list(layers.index[layers["is_float"]])
        if kept:
            quantizer.quantize(work / "mixed.onnx", excluded=kept, operations=PLAIN_OPERATIONS)
            # A layer that costs little alone can cost much in float between layers in int8: seen once.
            errors = [
                quantizer.measure_error(path) for path in (work / "mixed.onnx", folder / f"{INT8}.onnx")
            ]
            if errors[0] < errors[1]:
                shutil.copy(work / "mixed.onnx", folder / f"{INT8}.onnx")
            else:
                layers["is_float"] = False
        quantizer.quantize(folder / f"{INT8_ALL}.onnx")
    return layers


def write_sparse(folder: Path, checkpoint: Checkpoint, sparsities: tuple[float, ...]) -> None:
    """Write the network with its smallest weights set to zero, wherever they are (Han et al. 2015).

    The files and the kernels are those of a dense network; nothing is trained afterwards.
    """
    for sparsity in sorted(sparsities):  # each goes on from the one before
        convolutions = [
            (module, "weight") for module in checkpoint.model.modules() if isinstance(module, torch.nn.Conv2d)
        ]
        prune.global_unstructured(convolutions, prune.L1Unstructured, amount=sparsity)
        for module, name in convolutions:
            prune.remove(module, name)
        export_onnx(checkpoint, folder / f"sparse_{100 * sparsity:.0f}.onnx", half=False)


def load_images(data: PackedDataset, rows: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Return the network's input for `rows`, float32 (N, 3, S, S)."""
    return preprocess([data.faces[row] for row in rows], preprocessing)


def choose_calibration(
    data: PackedDataset, preprocessing: Preprocessing, settings: CompressionParams
) -> np.ndarray:
    """Return training faces to calibrate on, drawn by the seed, as the network's input."""
    rows = draw_rows(data.get_rows("train"), settings.calibration_faces, settings.seed)
    return load_images(data, rows, preprocessing)


def find_reference(name: str, title: str, settings: CompressionParams) -> str:
    """Return what variant `name` is compared with: the `baseline` in float, or its own `float_reference`."""
    return f"{settings.baseline if title == 'baseline' else name.partition('.')[0]}.{FLOAT}"


def get_variants_dir(dirs: OutputDirs, network: str) -> Path:
    """Return the folder of a network's variants, `<variant>.onnx` each."""
    return dirs.compressed / network


def get_logits_path(dirs: OutputDirs, network: str) -> Path:
    """Return the table of the logits of a network's variants."""
    return dirs.reports / "compression" / f"{network}.parquet"


def read_logits(dirs: OutputDirs, network: str, data: PackedDataset) -> dict[str, dict[str, np.ndarray]]:
    """Return variant to split to float32 (N, C) logits. Raises DataError as `read_table` does."""
    table = read_table(get_logits_path(dirs, network), data, "compress")
    logits: dict[str, dict[str, np.ndarray]] = {}
    for variant in dict.fromkeys(column.rsplit("/", 1)[0] for column in table.columns if "/" in column):
        columns = [f"{variant}/{emotion}" for emotion in data.emotions]
        logits[variant] = {
            split: table.loc[table["split"] == split, columns].to_numpy(np.float32, copy=True)
            for split in SPLITS
        }
    return logits


def _describe_training(config: Mapping[str, Any]) -> dict[str, object]:
    training = config["params"]["training"]
    start = training["weights_file"] if training["weights"] == "file" else training["weights"]
    teachers = [Path(path).name for path in training["teachers"]]
    return {
        "epochs": training["epochs"],
        "trained_on": config["device"],
        "start": Path(start).name,
        "teacher": " + ".join(ENSEMBLE if name == TEACHER_NAME else name for name in teachers) or "none",
    }


def _tabulate(logits: Mapping[str, Mapping[str, np.ndarray]], data: PackedDataset) -> pd.DataFrame:
    rows = {split: data.get_rows(split) for split in SPLITS}
    parts = {
        "row": np.concatenate(list(rows.values())),
        "split": np.repeat(SPLITS, [len(part) for part in rows.values()]),
    }
    for variant, of_splits in logits.items():
        both = np.concatenate([of_splits[split] for split in SPLITS])
        parts |= {f"{variant}/{emotion}": both[:, i] for i, emotion in enumerate(data.emotions)}
    return pd.DataFrame(parts)
