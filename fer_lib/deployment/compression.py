"""One trained network in several forms: float32, int8, sparse. What each says, and what it weighs.

The forms lie in `models/<dataset>/compressed/<network>/`, what they say of validation and test in
`reports/<dataset>/compression/<network>.parquet`; later stages read the file instead of the networks.
"""

import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn.utils import prune

from fer_lib.data.packed import PackedDataset, load_packed
from fer_lib.deployment.export import export_onnx, round_weights, scale_logits
from fer_lib.deployment.quantization import BATCH_SIZE, PLAIN_OPERATIONS, Quantizer
from fer_lib.errors import FerError, ModelError
from fer_lib.evaluation.metrics import fit_temperature
from fer_lib.evaluation.predictions import SPLITS, hash_weights
from fer_lib.files import write_atomically
from fer_lib.inference.runtime import open_session, run_session
from fer_lib.metrics_file import write_metrics
from fer_lib.models.build import Checkpoint, load_checkpoint
from fer_lib.models.preprocessing import Preprocessing, preprocess
from fer_lib.models.pruning import count_macs
from fer_lib.params import CompressionParams, load_params
from fer_lib.paths import OutputDirs, get_output_dirs
from fer_lib.provenance import hash_files
from fer_lib.training.predict import predict_logits
from fer_lib.training.recipes import ENSEMBLE, TEACHER_NAME, check_match

FLOAT, INT8, INT8_ALL = "float32", "int8", "int8_all"
"""Forms of a network: as trained; int8 but for gates and the layers that lose most; int8 throughout."""


def compress(network: str, dataset: str, out_dir: str | Path | None = None) -> Path:
    """Write every form of a trained network and what it says; return the folder of the forms.

    Matrices are rounded to half precision, then logits divided by the temperature that fits validation.
    Raises ModelError when the network has not been trained, or was trained on other data.
    """
    start = time.monotonic()
    params, dirs, data = load_params(dataset), get_output_dirs(dataset, out_dir), load_packed(dataset)
    settings = params.compression
    checkpoint = load_checkpoint(dirs.models / network)
    check_match(checkpoint, data)
    folder = get_forms_dir(dirs, network)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    round_weights(checkpoint.model)
    checkpoint.model.float()
    rows = data.get_rows("val")
    logits = predict_logits(checkpoint.model, data, rows, checkpoint.preprocessing, BATCH_SIZE)
    temperature = fit_temperature(logits, data.labels[rows])
    scale_logits(checkpoint.model, temperature)
    difference = export_onnx(checkpoint, folder / f"{FLOAT}.onnx", half=False)
    metrics: dict[str, object] = {
        "architecture": checkpoint.config["architecture"],
        "image_size": checkpoint.preprocessing.image_size,
        "macs": count_macs(checkpoint.model, checkpoint.preprocessing.image_size),
        "n_parameters": sum(parameter.numel() for parameter in checkpoint.model.parameters()),
        "temperature": temperature,
        "export.max_logit_difference": difference,
        "weights_sha256": hash_weights(dirs.models / network),
        "trained_at_commit": checkpoint.config["git_commit"],
        **_describe_training(checkpoint.config),
    }
    metrics |= write_int8(folder, choose_calibration(data, checkpoint.preprocessing, settings), settings)
    if network == settings.parent:
        write_sparse(folder, checkpoint, settings.sparsities)
    images = {split: load_images(data, data.get_rows(split), checkpoint.preprocessing) for split in SPLITS}
    said = {}
    for file in sorted(folder.glob("*.onnx")):
        said[file.stem] = _predict(file, images)
        metrics |= {f"{file.stem}.bytes": file.stat().st_size, f"{file.stem}.sha256": hash_files([file])}
    table = _tabulate(said, data)
    write_atomically(get_said_path(dirs, network), table.to_parquet(index=False))
    seconds = time.monotonic() - start
    write_metrics(dirs, f"compression/{network}", metrics, data.meta, params, settings.seed, seconds)
    return folder


def write_int8(folder: Path, images: np.ndarray, settings: CompressionParams) -> dict[str, object]:
    """Write the int8 forms of the float network in `folder`; return the sensitivity of its layers as metrics.

    images: float32 (N, 3, S, S) faces to calibrate on.
    """
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        shutil.copy(folder / f"{FLOAT}.onnx", work)
        quantizer = Quantizer.prepare(work / f"{FLOAT}.onnx", images, settings.percentile)
        layers = quantizer.measure_sensitivity(work)
        kept = list(layers.index[layers["error"] > settings.max_layer_error])
        quantizer.quantize(folder / f"{INT8}.onnx", excluded=kept, operations=PLAIN_OPERATIONS)
        quantizer.quantize(folder / f"{INT8_ALL}.onnx")
    metrics: dict[str, object] = {"n_layers": len(layers), "n_float_layers": len(kept)}
    for number, (kind, error) in enumerate(zip(layers["kind"], layers["error"], strict=True)):
        metrics |= {f"layer_{number}.kind": kind, f"layer_{number}.error": error}
    return metrics


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
    rows, rng = data.get_rows("train"), np.random.default_rng(settings.seed)
    chosen = rng.choice(rows, min(settings.calibration_faces, len(rows)), replace=False)
    return load_images(data, np.sort(chosen), preprocessing)


def get_forms_dir(dirs: OutputDirs, network: str) -> Path:
    """Return the folder of a network's forms, `<form>.onnx` each."""
    return dirs.models / "compressed" / network


def get_said_path(dirs: OutputDirs, network: str) -> Path:
    """Return the file with what the forms of a network say."""
    return dirs.reports / "compression" / f"{network}.parquet"


def read_said(dirs: OutputDirs, network: str, data: PackedDataset) -> dict[str, dict[str, np.ndarray]]:
    """Return form to split to float32 (N, C) logits. Raises FerError when stage `compress` has not run."""
    path = get_said_path(dirs, network)
    if not path.is_file():
        raise FerError(f"{path}: not found; run `python -m fer_lib compress {network}` or `make repro` first")
    table = pd.read_parquet(path)
    forms = list(dict.fromkeys(column.rsplit("/", 1)[0] for column in table.columns if "/" in column))
    said = {}
    for form in forms:
        columns = [f"{form}/{emotion}" for emotion in data.emotions]
        said[form] = {
            split: table.loc[table["split"] == split, columns].to_numpy(np.float32, copy=True)
            for split in SPLITS
        }
    rows = np.concatenate([data.get_rows(split) for split in SPLITS])
    if not np.array_equal(table["row"], rows):
        raise ModelError(
            f"{path}: made of other faces than those of {data.meta['dataset']}; run `make repro`"
        )
    return said


def _describe_training(config: Mapping[str, Any]) -> dict[str, object]:
    training = config["params"]["training"]
    start = training["weights_file"] if training["weights"] == "file" else training["weights"]
    teacher = Path(training["teacher"] or "none").name
    return {
        "epochs": training["epochs"],
        "trained_on": config["device"],
        "start": Path(start).name,
        "teacher": ENSEMBLE if teacher == TEACHER_NAME else teacher,
    }


def _tabulate(said: Mapping[str, Mapping[str, np.ndarray]], data: PackedDataset) -> pd.DataFrame:
    rows = {split: data.get_rows(split) for split in SPLITS}
    parts = {
        "row": np.concatenate(list(rows.values())),
        "split": np.repeat(SPLITS, [len(part) for part in rows.values()]),
    }
    for form, logits in said.items():
        both = np.concatenate([logits[split] for split in SPLITS])
        parts |= {f"{form}/{emotion}": both[:, i] for i, emotion in enumerate(data.emotions)}
    return pd.DataFrame(parts)


def _predict(path: Path, images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = open_session(path)
    return {split: run_session(session, images[split], BATCH_SIZE) for split in images}
