"""What networks say of perturbed test faces, in files that notebook 08 reads instead of the networks."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from fer_lib import conditions, occlusions, perturbations
from fer_lib.compression import get_forms_dir
from fer_lib.errors import FerError, ModelError
from fer_lib.explain import compute_heatmaps, find_stage
from fer_lib.faithfulness import correlate_ranks
from fer_lib.files import write_atomically
from fer_lib.inference import compute_softmax
from fer_lib.models import Checkpoint, load_checkpoint
from fer_lib.packed import PackedDataset, load_packed
from fer_lib.params import RobustnessParams, load_params
from fer_lib.paths import OutputDirs, get_output_dirs
from fer_lib.perturbations import FRAMING, ORIENTATION, PERTURBATIONS, SEVERITIES, Sample, perturb
from fer_lib.predictions import hash_weights
from fer_lib.preprocessing import Preprocessing, preprocess
from fer_lib.provenance import hash_code
from fer_lib.recipes import check_match
from fer_lib.regions import locate_landmarks
from fer_lib.runtime import open_session, run_session

CLEAN = "clean"
"""The name under which the faces as they are stand in the files."""

ENSEMBLE = "ensemble"
"""The soft vote of `robustness.members`, each with the same weight."""

HEATMAPS = "heatmaps"
"""The file with how far the heat maps of the explained network follow."""

BATCH_SIZE = 64

Network = Callable[[list[np.ndarray]], np.ndarray]
"""Cropped faces, uint8, to float64 (N, C) probabilities."""

Columns = dict[str, np.ndarray]


def predict_perturbed(dataset: str, out_dir: str | Path | None = None) -> Path:
    """Write what every network says under every perturbation and severity; return the folder of the files.

    `robustness/perturbed/<network>.parquet`: row, label, and per condition `<perturbation>/<severity>/said`,
    the emotion named (as index), and `.../confidence`. `heatmaps.parquet`: row, and per condition that leaves
    the face where it is the rank correlation of the explained network's map with that of the face as it is,
    both for the emotion named there. Killed and started again, it goes on with the next perturbation. Raises
    ModelError when a network has not been trained, or was trained on other data.
    """
    params, dirs, data = load_params(dataset), get_output_dirs(dataset, out_dir), load_packed(dataset)
    settings = params.robustness
    names = [name for name in (*settings.networks, *settings.members) if name != ENSEMBLE]
    networks = {name: open_network(name, dirs, data) for name in dict.fromkeys(names)}
    checkpoint = load_checkpoint(dirs.models / settings.explained)
    rows = choose_rows(data, settings)
    faces, samples = [np.asarray(data.faces[row]) for row in rows], build_samples(data, rows, settings.seed)
    follower = Follower(checkpoint, faces[: settings.n_heatmaps])
    state = dirs.training_state / "perturbed.npz"
    fingerprint = _describe_run(dirs, data, settings)
    found = _read_state(state, fingerprint)
    for name in tqdm((CLEAN, *PERTURBATIONS), desc="perturb", unit="perturbation", disable=None):
        if any(key.split("|")[1].startswith(f"{name}/") for key in found):
            continue
        for severity in (0,) if name == CLEAN else SEVERITIES[1:]:
            changed = faces if name == CLEAN else _perturb_all(faces, name, severity, samples)
            said = {network: run(changed) for network, run in networks.items()}
            said[ENSEMBLE] = np.mean([said[member] for member in settings.members], axis=0)
            for network in settings.networks:
                key = f"{network}|{name}/{severity}"
                found[f"{key}/said"] = said[network].argmax(axis=1).astype(np.uint8)
                found[f"{key}/confidence"] = said[network].max(axis=1).round(3).astype(np.float32)
            if name != CLEAN and PERTURBATIONS[name].family not in (FRAMING, ORIENTATION):
                found[f"{HEATMAPS}|{name}/{severity}"] = follower.follow(changed[: settings.n_heatmaps])
        _write_state(state, fingerprint, found)
    about = {"row": rows, "label": data.labels[rows].astype(np.uint8)}
    for network in settings.networks:
        _write_table(get_predictions_path(dirs, network), about | _select(found, network))
    _write_table(
        get_predictions_path(dirs, HEATMAPS),
        {"row": rows[: settings.n_heatmaps]} | _select(found, HEATMAPS),
    )
    state.unlink(missing_ok=True)
    return get_predictions_path(dirs, HEATMAPS).parent


class Follower:
    """The heat maps of some faces as they are, with which those of the same faces changed are compared."""

    def __init__(self, checkpoint: Checkpoint, faces: list[np.ndarray]):
        self._checkpoint = checkpoint
        self._stage = find_stage(checkpoint.model)
        images = self._build_input(faces)
        with torch.inference_mode():
            self._said = checkpoint.model(images).argmax(dim=1).numpy()
        self._plain = compute_heatmaps(checkpoint.model, images, self._said, self._stage)

    def follow(self, faces: list[np.ndarray]) -> np.ndarray:
        """Return float32 (N,): the rank correlation of each face's map with that of the face as it was."""
        maps = compute_heatmaps(self._checkpoint.model, self._build_input(faces), self._said, self._stage)
        return correlate_ranks(self._plain, maps).astype(np.float32)

    def _build_input(self, faces: list[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(preprocess(faces, self._checkpoint.preprocessing)))


def open_network(name: str, dirs: OutputDirs, data: PackedDataset) -> Network:
    """Return a network by its name: `<network>.<form>` of stage `compress`, or a trained recipe.

    Raises ModelError when it is not there.
    """
    network, _, form = name.partition(".")
    checkpoint = load_checkpoint(dirs.models / network)
    check_match(checkpoint, data)
    if not form:
        return partial(_run_torch, checkpoint.model, checkpoint.preprocessing)
    path = get_forms_dir(dirs, network) / f"{form}.onnx"
    if not path.is_file():
        raise ModelError(
            f"{path}: not found; run `python -m fer_lib compress {network}` or `make repro` first"
        )
    session = open_session(path)
    return lambda faces: compute_softmax(
        run_session(session, preprocess(faces, checkpoint.preprocessing), BATCH_SIZE)
    )


def choose_rows(data: PackedDataset, settings: RobustnessParams) -> np.ndarray:
    """Return the test rows that are perturbed: `n_faces` of them, drawn by the seed, in order."""
    rows = data.get_rows("test")
    rng = np.random.default_rng(settings.seed)
    return np.sort(rng.choice(rows, min(settings.n_faces, len(rows)), replace=False))


def build_samples(data: PackedDataset, rows: np.ndarray, seed: int) -> list[Sample]:
    """Return what the perturbations may know of each face."""
    landmarks, _ = locate_landmarks(data, rows)
    side = data.faces.shape[1]
    return [Sample(points * side, seed + int(row)) for points, row in zip(landmarks, rows, strict=True)]


def get_predictions_path(dirs: OutputDirs, name: str) -> Path:
    """Return the file of a network's answers."""
    return dirs.reports / "robustness" / "perturbed" / f"{name}.parquet"


def read_perturbed(dirs: OutputDirs, name: str, data: PackedDataset) -> pd.DataFrame:
    """Return a network's table. Raises FerError when there is none, or one of other faces."""
    path = get_predictions_path(dirs, name)
    if not path.is_file():
        raise FerError(f"{path}: not found; run `python -m fer_lib perturb` or `make repro` first")
    table = pd.read_parquet(path)
    if not np.array_equal(table["label"], data.labels[table["row"]]):
        raise FerError(f"{path}: made of other faces than those of {data.meta['dataset']}; run `make repro`")
    return table


def _perturb_all(
    faces: list[np.ndarray], name: str, severity: int, samples: list[Sample]
) -> list[np.ndarray]:
    return [perturb(face, name, severity, sample) for face, sample in zip(faces, samples, strict=True)]


def _run_torch(model: torch.nn.Module, preprocessing: Preprocessing, faces: list[np.ndarray]) -> np.ndarray:
    images = torch.from_numpy(np.ascontiguousarray(preprocess(faces, preprocessing)))
    with torch.inference_mode():
        logits = [model(part.to(memory_format=torch.channels_last)) for part in images.split(BATCH_SIZE)]
    return compute_softmax(torch.cat(logits).float().numpy())


def _describe_run(dirs: OutputDirs, data: PackedDataset, settings: RobustnessParams) -> str:
    """Return a hash of all that decides the answers; a state with another one is void."""
    names = {name.partition(".")[0] for name in (*settings.networks, *settings.members)} - {ENSEMBLE}
    weights = {name: hash_weights(dirs.models / name) for name in sorted({*names, settings.explained})}
    code = hash_code([Path(module.__file__) for module in (conditions, occlusions, perturbations)])
    content = [data.data_hash, settings.model_dump(), weights, code]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_state(path: Path, fingerprint: str) -> Columns:
    if not path.is_file():
        return {}
    with np.load(path) as stored:
        content = dict(stored)
    return content if str(content.pop("fingerprint")) == fingerprint else {}


def _write_state(path: Path, fingerprint: str, found: Columns) -> None:
    content = io.BytesIO()
    np.savez(content, fingerprint=np.array(fingerprint), **found)
    write_atomically(path, content.getvalue())


def _select(found: Mapping[str, np.ndarray], network: str) -> Columns:
    return {key.split("|", 1)[1]: values for key, values in found.items() if key.startswith(f"{network}|")}


def _write_table(path: Path, columns: Columns) -> None:
    write_atomically(path, pd.DataFrame(columns).to_parquet(index=False, compression="zstd"))
