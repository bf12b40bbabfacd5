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

from fer_lib.analysis import explain, faithfulness, regions
from fer_lib.analysis.explain import compute_heatmaps, find_stage
from fer_lib.analysis.faithfulness import correlate_ranks
from fer_lib.analysis.regions import locate_landmarks
from fer_lib.data import detector, framing
from fer_lib.data.packed import PackedDataset, load_packed
from fer_lib.deployment.compression import get_forms_dir
from fer_lib.errors import ModelError
from fer_lib.evaluation import bootstrap as resampling
from fer_lib.evaluation import conditions, occlusions, perturbations
from fer_lib.evaluation.bootstrap import draw_rows
from fer_lib.evaluation.perturbations import FRAMING, ORIENTATION, PERTURBATIONS, SEVERITIES, Sample, perturb
from fer_lib.evaluation.predictions import read_table, write_table
from fer_lib.files import write_atomically
from fer_lib.inference.runtime import open_session, run_session
from fer_lib.models import preprocessing
from fer_lib.models.build import Checkpoint, load_checkpoint
from fer_lib.models.checkpoints import CONFIG_NAME, WEIGHTS_NAME
from fer_lib.models.preprocessing import Preprocessing, preprocess
from fer_lib.params import RobustnessParams, load_params
from fer_lib.paths import OutputDirs, get_output_dirs
from fer_lib.provenance import hash_code
from fer_lib.training.predict import compute_softmax
from fer_lib.training.recipes import check_match

CLEAN = "clean"
"""The name under which the faces as they are stand in the files."""

ENSEMBLE = "ensemble"
"""The soft vote of `robustness.members`, each with the same weight."""

HEATMAPS = "heatmaps"
"""The file with how far the heat maps of the explained network follow."""

BATCH_SIZE = 64

_DECISIVE_FILES = [
    Path(__file__),
    *(
        Path(module.__file__)
        for module in (
            *(conditions, detector, explain, faithfulness, framing, occlusions),
            *(perturbations, preprocessing, regions, resampling),
        )
    ),
]
"""A state that other code of these left is void."""

Network = Callable[[list[np.ndarray]], np.ndarray]
"""Cropped faces, uint8, to float64 (N, C) probabilities."""

Columns = dict[str, np.ndarray]


def predict_perturbed(dataset: str, out_dir: str | Path | None = None) -> Path:
    """Write what every network says under every perturbation and severity; return the folder of the files.

    `robustness/perturbed/<network>.parquet`: row, label, and per condition `<perturbation>/<severity>/said`,
    the emotion named (as index), and `.../confidence`. `heatmaps.parquet`: row, and per condition the rank
    correlation of `Follower`. Killed and started again, it goes on with the next perturbation. Raises
    ModelError when a network has not been trained, or was trained on other data.
    """
    params, dirs, data = load_params(dataset), get_output_dirs(dataset, out_dir), load_packed(dataset)
    settings = params.robustness
    names = [name for name in (*settings.networks, *settings.members) if name != ENSEMBLE]
    networks = {name: open_network(name, dirs, data) for name in dict.fromkeys(names)}
    checkpoint = load_checkpoint(dirs.models / settings.explained)
    rows = draw_rows(data.get_rows("test"), settings.n_faces, settings.seed)
    faces, samples = [np.asarray(data.faces[row]) for row in rows], build_samples(data, rows, settings.seed)
    few = draw_rows(np.arange(len(rows)), settings.n_heatmaps, settings.seed)
    follower = Follower(checkpoint, [faces[i] for i in few], [samples[i] for i in few])
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
            if name != CLEAN:
                found[f"{HEATMAPS}|{name}/{severity}"] = follower.follow(
                    [changed[i] for i in few], name, severity
                )
        _write_state(state, fingerprint, found)
    about = {"row": rows, "label": data.labels[rows].astype(np.uint8)}
    tables = {network: about | _select(found, network) for network in settings.networks}
    tables[HEATMAPS] = {"row": rows[few]} | _select(found, HEATMAPS)
    for title, columns in tables.items():
        write_table(get_predictions_path(dirs, title), pd.DataFrame(columns), data)
    state.unlink(missing_ok=True)
    return get_predictions_path(dirs, HEATMAPS).parent


class Follower:
    """The heat maps of some faces as they are, with which those of the same faces changed are compared.

    The maps are those that the app shows. Both are of the emotion that is named on the face as it is.
    """

    def __init__(self, checkpoint: Checkpoint, faces: list[np.ndarray], samples: list[Sample]):
        self._checkpoint, self._samples = checkpoint, samples
        self._stage = find_stage(checkpoint.model)
        images = self._build_input(faces)
        with torch.inference_mode():
            self._said = checkpoint.model(images).argmax(dim=1).numpy()
        self._plain = compute_heatmaps(checkpoint.model, images, self._said, self._stage)

    def follow(self, faces: list[np.ndarray], name: str, severity: int) -> np.ndarray:
        """Return float32 (N,): the rank correlation of each changed face's map with the face's own.

        Where a perturbation moves the face, the earlier map is moved as well before the two are compared.
        """
        maps = compute_heatmaps(self._checkpoint.model, self._build_input(faces), self._said, self._stage)
        plain = self._plain
        if PERTURBATIONS[name].family in (FRAMING, ORIENTATION):
            levels = [np.round(255 * heatmap).astype(np.uint8) for heatmap in plain]
            plain = np.stack(_perturb_all(levels, name, severity, self._samples))
        return correlate_ranks(plain, maps).astype(np.float32)

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
        return partial(_run_in_batches, partial(_run_torch, checkpoint.model), checkpoint.preprocessing)
    path = get_forms_dir(dirs, network) / f"{form}.onnx"
    if not path.is_file():
        raise ModelError(
            f"{path}: not found; run `python -m fer_lib compress {network} --dataset {data.meta['dataset']}` "
            "or `make repro` first"
        )
    run = partial(run_session, open_session(path), batch_size=BATCH_SIZE)
    return partial(_run_in_batches, run, checkpoint.preprocessing)


def build_samples(data: PackedDataset, rows: np.ndarray, seed: int) -> list[Sample]:
    """Return what the perturbations may know of each face."""
    landmarks, _ = locate_landmarks(data, rows)
    side = data.faces.shape[1]
    return [Sample(points * side, seed + int(row)) for points, row in zip(landmarks, rows, strict=True)]


def get_predictions_path(dirs: OutputDirs, name: str) -> Path:
    """Return the file of a network's answers."""
    return dirs.reports / "robustness" / "perturbed" / f"{name}.parquet"


def read_perturbed(dirs: OutputDirs, name: str, data: PackedDataset) -> pd.DataFrame:
    """Return the table of a network, or of `HEATMAPS`. Raises DataError for none, or one of other data."""
    return read_table(get_predictions_path(dirs, name), data, "perturb")


def _perturb_all(
    faces: list[np.ndarray], name: str, severity: int, samples: list[Sample]
) -> list[np.ndarray]:
    return [perturb(face, name, severity, sample) for face, sample in zip(faces, samples, strict=True)]


def _run_in_batches(
    run: Callable[[np.ndarray], np.ndarray], settings: Preprocessing, faces: list[np.ndarray]
) -> np.ndarray:
    starts = range(0, len(faces), BATCH_SIZE)
    logits = [run(preprocess(faces[start : start + BATCH_SIZE], settings)) for start in starts]
    return compute_softmax(np.concatenate(logits))


def _run_torch(model: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        inputs = torch.from_numpy(np.ascontiguousarray(images)).to(memory_format=torch.channels_last)
        return model(inputs).float().numpy()


def _describe_run(dirs: OutputDirs, data: PackedDataset, settings: RobustnessParams) -> str:
    """Return a hash of all that decides the answers; a state with another one is void."""
    names = sorted({*settings.networks, *settings.members, settings.explained} - {ENSEMBLE})
    networks = [name.partition(".") for name in names]
    files = [dirs.models / name / part for name, _, _ in networks for part in (CONFIG_NAME, WEIGHTS_NAME)]
    files += [get_forms_dir(dirs, name) / f"{form}.onnx" for name, _, form in networks if form]
    weights = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    code = hash_code(_DECISIVE_FILES)
    used = {"networks", "members", "explained", "n_faces", "n_heatmaps", "seed"}
    chosen = settings.model_dump(include=used)
    content = [data.data_hash, chosen, weights, code]
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
