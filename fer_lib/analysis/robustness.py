"""Predict test faces under common corruptions, and write the predictions to files that notebook 08 reads."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

import fer_lib
from fer_lib.analysis.explain import build_input, compute_saliency, find_stage, locate_landmarks
from fer_lib.analysis.external import ExternalFaces
from fer_lib.analysis.faithfulness import correlate_ranks
from fer_lib.data.packed import PackedDataset, load_packed
from fer_lib.deployment.compression import get_variants_dir
from fer_lib.errors import ModelError
from fer_lib.evaluation.bootstrap import draw_rows
from fer_lib.evaluation.perturbations import (
    CLEAN,
    CORRUPTIONS,
    FRAMING,
    ORIENTATION,
    SEVERITIES,
    Sample,
    perturb,
)
from fer_lib.evaluation.predictions import read_table, write_table
from fer_lib.files import write_atomically
from fer_lib.inference.recognizer import Recognizer, run_session
from fer_lib.jobs import run_side_by_side
from fer_lib.models.build import Checkpoint, load_checkpoint
from fer_lib.models.checkpoints import CONFIG_NAME, WEIGHTS_NAME
from fer_lib.models.preprocessing import preprocess
from fer_lib.onnx_session import open_session
from fer_lib.params import load_params
from fer_lib.paths import OutputDirs, get_output_dirs
from fer_lib.provenance import hash_code, hash_file, hash_values
from fer_lib.study_sections import RobustnessParams
from fer_lib.training.predict import Predictor
from fer_lib.training.recipes import check_match
from fer_lib.training.voting import compute_softmax

ENSEMBLE = "ensemble"
"""The soft vote of `robustness.members`, each with the same weight."""

SALIENCY = "saliency"
"""The file with how far the saliency maps of the explained network follow."""

BATCH_SIZE = 64

Network = Callable[[Sequence[np.ndarray]], np.ndarray]
"""Faces, uint8, to float64 (N, C) probabilities."""

Columns = dict[str, np.ndarray]


def predict_perturbed(dataset: str, out_dir: str | Path | None = None) -> Path:
    """Write the predictions of every network under every corruption; return the folder of the files.

    `robustness/perturbed/<network>.parquet`: row, label, and per condition `<corruption>/<severity>/pred`,
    the predicted class, and `.../confidence`. `saliency.parquet`: row, and per condition the rank
    correlation of `SaliencyFollower`. Killed and started again, it goes on with the corruptions that are
    left. Raises ModelError when a network has not been trained, or was trained on other data.
    """
    dirs, study = get_output_dirs(dataset, out_dir), _open_study(dataset, out_dir)
    settings, data, order = study.settings, study.data, (CLEAN, *CORRUPTIONS)
    state, fingerprint = dirs.training_state / "perturbed.npz", _describe_run(dirs, data, settings)
    found = _read_state(state, fingerprint)
    jobs = {
        name: partial(_predict_corruption, name, dataset, out_dir)
        for name in order
        if not any(_get_corruption(key) == name for key in found)
    }

    def keep(_name: str, columns: Columns) -> None:
        found.update(columns)
        _write_state(state, fingerprint, found)

    run_side_by_side(jobs, "perturb", on_done=keep)
    found = {key: found[key] for key in sorted(found, key=lambda key: order.index(_get_corruption(key)))}
    about = {"row": study.rows, "label": data.labels[study.rows].astype(np.uint8)}
    tables = {network: about | _select(found, network) for network in settings.networks}
    tables[SALIENCY] = {"row": study.rows[study.few]} | _select(found, SALIENCY)
    for title, columns in tables.items():
        write_table(get_predictions_path(dirs, title), pd.DataFrame(columns), data)
    state.unlink(missing_ok=True)
    return get_predictions_path(dirs, SALIENCY).parent


class _Study(NamedTuple):
    """What a process needs to show faces under a corruption to the networks."""

    settings: RobustnessParams
    data: PackedDataset
    networks: dict[str, "Network"]
    rows: np.ndarray  # of the faces in the store
    faces: list[np.ndarray]
    samples: list[Sample]
    few: np.ndarray  # places among the faces whose saliency maps are followed
    follower: "SaliencyFollower"


@lru_cache(maxsize=1)
def _open_study(dataset: str, out_dir: str | Path | None) -> _Study:
    params, dirs, data = load_params(dataset), get_output_dirs(dataset, out_dir), load_packed(dataset)
    settings = params.robustness
    names = dict.fromkeys(name for name in (*settings.networks, *settings.members) if name != ENSEMBLE)
    networks = {name: open_network(name, dirs, data) for name in names}
    rows = draw_rows(data.get_rows("test"), settings.n_faces, settings.seed)
    faces = [np.asarray(data.faces[row]) for row in rows]
    samples = build_samples(faces, rows, settings.seed)
    few = draw_rows(np.arange(len(rows)), settings.n_saliency, settings.seed)
    checkpoint = load_checkpoint(dirs.models / settings.explained)
    follower = SaliencyFollower(checkpoint, [faces[i] for i in few], [samples[i] for i in few])
    return _Study(settings, data, networks, rows, faces, samples, few, follower)


def _predict_corruption(name: str, dataset: str, out_dir: str | Path | None) -> Columns:
    """Return the predictions under a corruption, by `<network>|<corruption>/<severity>/pred` and so on."""
    study, found = _open_study(dataset, out_dir), {}
    for severity in (0,) if name == CLEAN else SEVERITIES[1:]:
        changed = perturb_faces(study.faces, name, severity, study.samples)
        probabilities = {network: predict(changed) for network, predict in study.networks.items()}
        members = [probabilities[member] for member in study.settings.members]
        probabilities[ENSEMBLE] = np.mean(members, axis=0)
        for network in study.settings.networks:
            key = f"{network}|{name}/{severity}"
            found[f"{key}/pred"] = probabilities[network].argmax(axis=1).astype(np.uint8)
            found[f"{key}/confidence"] = probabilities[network].max(axis=1).round(3).astype(np.float32)
        if name != CLEAN:
            followed = study.follower.follow([changed[i] for i in study.few], name, severity)
            found[f"{SALIENCY}|{name}/{severity}"] = followed
    return found


def _get_corruption(key: str) -> str:
    return key.split("|")[1].split("/")[0]


def predict_external(
    recognizer: Recognizer, faces: ExternalFaces, landmarks: np.ndarray, n_faces: int, seed: int
) -> pd.DataFrame:
    """Return a table as `predict_perturbed` writes it, of a model on at most `n_faces` that a user brings.

    landmarks: float (N, 5, 2) of all faces, fractions of the side.
    """
    chosen = draw_rows(np.arange(len(faces.labels)), n_faces, seed)
    crops = [faces.crops[i] for i in chosen]
    samples = [Sample(landmarks[i] * recognizer.framing.size, int(i)) for i in chosen]
    columns: Columns = {"row": chosen, "label": faces.labels[chosen]}
    for name, severity, changed in perturb_all(crops, samples):
        probabilities = recognizer.compute_probabilities(changed)
        columns[f"{name}/{severity}/pred"] = probabilities.argmax(axis=1)
        columns[f"{name}/{severity}/confidence"] = probabilities.max(axis=1)
    return pd.DataFrame(columns)


def perturb_all(
    faces: Sequence[np.ndarray], samples: Sequence[Sample]
) -> Iterator[tuple[str, int, list[np.ndarray]]]:
    """Yield `CLEAN`, 0 and the faces, then corruption, severity and faces."""
    conditions = [(CLEAN, 0), *((name, severity) for name in CORRUPTIONS for severity in SEVERITIES[1:])]
    for name, severity in tqdm(conditions, desc="perturb", unit="condition", disable=None):
        yield name, severity, perturb_faces(faces, name, severity, samples)


def perturb_faces(
    faces: Sequence[np.ndarray], name: str, severity: int, samples: Sequence[Sample]
) -> list[np.ndarray]:
    """Return faces under a corruption; severity 0 leaves them clean."""
    return [perturb(face, name, severity, sample) for face, sample in zip(faces, samples, strict=True)]


class SaliencyFollower:
    """The saliency maps of some clean faces, to compare those of the same faces under corruption with.

    The maps are those that the app shows. Both explain the emotion that is predicted for the clean face.
    """

    def __init__(self, checkpoint: Checkpoint, faces: list[np.ndarray], samples: list[Sample]):
        self._checkpoint, self._samples = checkpoint, samples
        self._stage = find_stage(checkpoint.model)
        images = build_input(faces, checkpoint.preprocessing)
        with torch.inference_mode():
            self._pred = checkpoint.model(images).argmax(dim=1).numpy()
        self._clean = compute_saliency(checkpoint.model, images, self._pred, self._stage)

    def follow(self, faces: list[np.ndarray], name: str, severity: int) -> np.ndarray:
        """Return float32 (N,): the rank correlation of each changed face's map with that of the clean face.

        Where a corruption moves the face, the earlier map is moved as well before the two are compared.
        """
        images = build_input(faces, self._checkpoint.preprocessing)
        maps = compute_saliency(self._checkpoint.model, images, self._pred, self._stage)
        clean = self._clean
        if CORRUPTIONS[name].family in (FRAMING, ORIENTATION):
            levels = [np.round(255 * saliency).astype(np.uint8) for saliency in clean]
            clean = np.stack(perturb_faces(levels, name, severity, self._samples))
        return correlate_ranks(clean, maps).astype(np.float32)


def open_network(name: str, dirs: OutputDirs, data: PackedDataset) -> Network:
    """Return a network by its name: `<network>.<variant>` of stage `compress`, or a trained recipe.

    Raises ModelError when it is not there.
    """
    network, _, variant = name.partition(".")
    checkpoint = load_checkpoint(dirs.models / network)
    check_match(checkpoint, data)
    if not variant:
        return Predictor(checkpoint.model, checkpoint.preprocessing, BATCH_SIZE).predict
    path = get_variants_dir(dirs, network) / f"{variant}.onnx"
    if not path.is_file():
        raise ModelError(
            f"{path}: not found; run `python -m fer_lib compress --dataset {data.meta['dataset']}` "
            "or `make results` first"
        )
    session = open_session(path, torch.get_num_threads())

    def predict(faces: Sequence[np.ndarray]) -> np.ndarray:
        # A batch is preprocessed at a time: thousands of faces at the network's size do not fit the memory.
        parts = [list(faces[start : start + BATCH_SIZE]) for start in range(0, len(faces), BATCH_SIZE)]
        inputs = (preprocess(part, checkpoint.preprocessing) for part in parts)
        return compute_softmax(np.concatenate([run_session(session, part, BATCH_SIZE) for part in inputs]))

    return predict


def build_samples(faces: Sequence[np.ndarray], rows: np.ndarray, seed: int) -> list[Sample]:
    """Return what the corruptions may know of each face."""
    landmarks, _ = locate_landmarks(faces)
    side = len(faces[0])
    return [Sample(points * side, seed + int(row)) for points, row in zip(landmarks, rows, strict=True)]


def get_predictions_path(dirs: OutputDirs, name: str) -> Path:
    """Return the file of a network's predictions."""
    return dirs.reports / "robustness" / "perturbed" / f"{name}.parquet"


def read_perturbed(dirs: OutputDirs, name: str, data: PackedDataset) -> pd.DataFrame:
    """Return the table of a network, or of `SALIENCY`. Raises DataError for none, or one of other data."""
    return read_table(get_predictions_path(dirs, name), data, "perturb")


def _describe_run(dirs: OutputDirs, data: PackedDataset, settings: RobustnessParams) -> str:
    """Return a hash of all that decides the predictions; a state with another one is void."""
    names = sorted({*settings.networks, *settings.members, settings.explained} - {ENSEMBLE})
    networks = [name.partition(".") for name in names]
    files = [dirs.models / name / part for name, _, _ in networks for part in (CONFIG_NAME, WEIGHTS_NAME)]
    files += [get_variants_dir(dirs, name) / f"{variant}.onnx" for name, _, variant in networks if variant]
    used = {"networks", "members", "explained", "n_faces", "n_saliency", "seed"}
    code = hash_code([Path(fer_lib.__file__).parent])
    return hash_values([data.data_hash, settings.model_dump(include=used), list(map(hash_file, files)), code])


def _read_state(path: Path, fingerprint: str) -> Columns:
    if not path.is_file():
        return {}
    with np.load(path) as stored:
        content = dict(stored)
    return content if str(content.pop("fingerprint")) == fingerprint else {}


def _write_state(path: Path, fingerprint: str, found: Columns) -> None:
    content = io.BytesIO()
    np.savez(content, fingerprint=np.array(fingerprint), **found)  # type: ignore[arg-type]
    write_atomically(path, content.getvalue())


def _select(found: Mapping[str, np.ndarray], network: str) -> Columns:
    return {key.split("|", 1)[1]: values for key, values in found.items() if key.startswith(f"{network}|")}
