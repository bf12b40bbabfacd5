"""Evaluate saliency maps of a trained network, and write the results to files that notebook 07 reads."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from fer_lib.analysis.explain import (
    ACTIVE_PARTS,
    FACE,
    METHODS,
    build_input,
    build_part_masks,
    compute_saliency,
    list_stages,
    locate_landmarks,
)
from fer_lib.analysis.faithfulness import (
    build_centre_maps,
    build_random_maps,
    compute_area,
    compute_curves,
    compute_energy,
    measure_stability,
    play_pointing_game,
    randomise_layers,
)
from fer_lib.data.framing import estimate_similarity
from fer_lib.data.packed import PackedDataset, load_packed
from fer_lib.evaluation.bootstrap import draw_rows
from fer_lib.evaluation.predictions import write_table
from fer_lib.files import write_atomically
from fer_lib.models.build import Checkpoint, load_checkpoint
from fer_lib.params import load_params
from fer_lib.paths import OutputDirs, get_output_dirs
from fer_lib.study_sections import GradcamParams
from fer_lib.training.recipes import check_match

CHOSEN, LAST, RANDOM, CENTRE = "chosen", "Grad-CAM, last stage", "random", "face centre"
"""The maps compared on test: what validation chose, what most projects show, and two that saw no network."""

SIDE = 48
"""Of the mean maps, aligned by the landmarks."""

N_DRAWS = 3
"""How often the weights are randomised."""


@dataclass(frozen=True)
class Faces:
    """Faces to explain: rows of the packed data, true and predicted classes, int (N,) each.

    images: float32 (N, 3, S, S), normalised.   landmarks, is_found: as `explain.locate_landmarks`.
    """

    rows: np.ndarray
    labels: np.ndarray
    pred: np.ndarray
    images: torch.Tensor
    landmarks: np.ndarray
    is_found: np.ndarray

    @property
    def side(self) -> int:
        """Pixels a side of the images, and of their maps."""
        return self.images.shape[-1]


def evaluate_saliency(dataset: str, out_dir: str | Path | None = None) -> Path:
    """Test saliency maps of the network `gradcam.network`; return the folder of the results.

    Writes to `reports/<dataset>/explain/`: `choice.parquet`, every method and stage on validation;
    `faces.parquet`, the chosen one and its rivals on test faces; `randomised.parquet` and
    `stability.parquet`; `maps.npz`, mean maps by emotion; `examples.npz`, single maps of drawn faces. Raises
    ModelError when the network has not been trained, or is not convolutional.
    """
    params, dirs, data = load_params(dataset), get_output_dirs(dataset, out_dir), load_packed(dataset)
    settings = params.gradcam
    checkpoint = load_checkpoint(dirs.models / settings.network)
    check_match(checkpoint, data)
    val = load_faces(checkpoint, data, "val", settings.n_chosen, settings.seed)
    choice = compare_methods(checkpoint.model, val)
    method, stage = choose_method(choice)
    test = load_faces(checkpoint, data, "test", settings.n_faces, settings.seed)
    maps = build_maps(checkpoint.model, test, method, stage, settings)
    few = draw_rows(np.arange(len(test.rows)), settings.n_randomised, settings.seed)
    asked = (checkpoint.model, test.images[few], test.pred[few], stage)
    draws = [
        pd.DataFrame(randomise_layers(*asked, settings.seed + draw, method)).assign(row=test.rows[few])
        for draw in tqdm(range(N_DRAWS), desc="randomised", unit="draw", disable=None)
    ]
    stability = {str(shift): measure_stability(*asked, shift, method) for shift in settings.shifts}
    tables = {
        "choice": choice,
        "faces": score_faces(checkpoint.model, data, test, maps),
        "randomised": pd.concat(draws, ignore_index=True),
        "stability": pd.DataFrame(stability).assign(row=test.rows[few]),
    }
    folder = get_folder(dirs)
    for name, table in tables.items():
        write_table(folder / f"{name}.parquet", table, data)
    _write_maps(folder / "maps.npz", average_maps(data, test, maps[CHOSEN], settings.min_faces))
    _write_maps(folder / "examples.npz", pick_examples(data, test, maps[CHOSEN]))
    return folder


def load_faces(checkpoint: Checkpoint, data: PackedDataset, split: str, n: int, seed: int) -> Faces:
    """Return `n` faces of a split, drawn by the seed, and the network's predictions."""
    rows = draw_rows(data.get_rows(split), n, seed)
    crops = [data.faces[row] for row in rows]
    images = build_input(crops, checkpoint.preprocessing)
    with torch.inference_mode():
        pred = np.concatenate([checkpoint.model(part).argmax(dim=1).numpy() for part in images.split(128)])
    return Faces(rows, data.labels[rows], pred, images, *locate_landmarks(crops))


def compare_methods(model: nn.Module, faces: Faces) -> pd.DataFrame:
    """Return one row per face, method and stage: method, stage, reduction, deletion, insertion (areas).

    The maps explain the predicted emotion. A good one has a small deletion and a large insertion area.
    """
    found, stages = [], list_stages(model)
    pairs = [(method, stage) for stage in stages for method in METHODS]
    for method, stage in tqdm(pairs, desc="methods", unit="map", disable=None):
        maps = compute_saliency(model, faces.images, faces.pred, stage, method)
        curves = compute_curves(model, faces.images, faces.pred, maps)
        areas = {curve: compute_area(points) for curve, points in curves.items()}
        found.append(pd.DataFrame(areas).assign(method=method, stage=stage, reduction=stages[stage]))
    return pd.concat(found, ignore_index=True)


def choose_method(choice: pd.DataFrame) -> tuple[str, str]:
    """Return the method and stage with the largest mean insertion minus deletion area."""
    score = (choice["insertion"] - choice["deletion"]).groupby([choice["method"], choice["stage"]]).mean()
    method, stage = score.index[int(score.argmax())]
    return method, stage


def build_maps(
    model: nn.Module, faces: Faces, method: str, stage: str, settings: GradcamParams
) -> dict[str, np.ndarray]:
    """Return the chosen maps and those they are compared with, float32 (N, S, S) each."""
    stages, side = list_stages(model), faces.side
    middle = faces.landmarks[:, :2].mean(axis=1)
    across = faces.landmarks[:, 1] - faces.landmarks[:, 0]
    down = np.stack([-across[:, 1], across[:, 0]], axis=1)
    distance = np.hypot(*across.T)
    return {
        CHOSEN: compute_saliency(model, faces.images, faces.pred, stage, method),
        LAST: compute_saliency(model, faces.images, faces.pred, list(stages)[-1], "Grad-CAM"),
        RANDOM: build_random_maps(len(faces.rows), side, max(2, side // stages[stage]), settings.seed),
        # As wide as the face: two standard deviations reach its border, in the mean of both directions.
        CENTRE: build_centre_maps(middle + FACE[1] * down, distance * (FACE[2] + FACE[3]) / 4, side),
    }


def score_faces(
    model: nn.Module, data: PackedDataset, faces: Faces, maps: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """Return one row per face and map.

    Columns: row, label, pred, map, landmarks_found; the areas `deletion` and `insertion` with the points of
    their curves, `<curve>/<step>`; `energy` and `pointing` of the active regions, `active_area`; and per
    part `part_<name>` and `area_<name>`, its share of the map's weight and of the pixels.
    """
    parts = [build_part_masks(points, faces.side) for points in faces.landmarks]
    active = build_active_masks(data, faces, parts)
    by_part = {name: np.stack([masks[name] for masks in parts]) for name in parts[0]}
    tables = []
    for name, of_faces in tqdm(maps.items(), desc="maps", unit="map", disable=None):
        columns = {"row": faces.rows, "label": faces.labels, "pred": faces.pred, "map": name}
        for curve, points in compute_curves(model, faces.images, faces.pred, of_faces).items():
            columns[curve] = compute_area(points)
            columns |= {f"{curve}/{step}": values for step, values in enumerate(points.T)}
        columns |= {
            "landmarks_found": faces.is_found,
            "energy": compute_energy(of_faces, active),
            "pointing": play_pointing_game(of_faces, active),
            "active_area": active.mean(axis=(1, 2)),
        }
        columns |= {f"part_{part}": compute_energy(of_faces, masks) for part, masks in by_part.items()}
        columns |= {f"area_{part}": masks.mean(axis=(1, 2)) for part, masks in by_part.items()}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def build_active_masks(data: PackedDataset, faces: Faces, parts: list[dict[str, np.ndarray]]) -> np.ndarray:
    """Return float32 (N, S, S): where the emotion shows.

    Drawn faces: what the action units of their label's prototype deform. Others: the parts of the face,
    `explain.ACTIVE_PARTS`, on which the predicted emotion rests.
    """
    drawn, size = data.regions(faces.rows), (faces.side, faces.side)
    if drawn is not None:
        return np.stack([cv2.resize(m.astype(np.float32), size, interpolation=cv2.INTER_AREA) for m in drawn])
    active = []
    for masks, index in zip(parts, faces.pred, strict=True):
        active.append(np.logical_or.reduce([masks[part] for part in ACTIVE_PARTS[data.emotions[index]]]))
    return np.stack(active).astype(np.float32)


def average_maps(
    data: PackedDataset, faces: Faces, maps: np.ndarray, min_faces: int
) -> dict[str, np.ndarray]:
    """Return mean maps, float32 (SIDE, SIDE), aligned by the landmarks, and the number of faces in each.

    Keys: `<correct|wrong>/<predicted emotion>`, of at least `min_faces`, and the same with `/n`.
    """
    typical = np.median(faces.landmarks, axis=0)
    aligned = []
    for points, saliency in zip(faces.landmarks, maps, strict=True):
        matrix = estimate_similarity(points * saliency.shape[-1] - 0.5, typical * SIDE - 0.5)
        aligned.append(cv2.warpAffine(saliency, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_CONSTANT))
    stacked, found = np.stack(aligned), {}
    for index, emotion in enumerate(data.emotions):
        for title, is_correct in (("correct", True), ("wrong", False)):
            chosen = (faces.pred == index) & ((faces.labels == faces.pred) == is_correct)
            if chosen.sum() >= min_faces:
                found[f"{title}/{emotion}"] = stacked[chosen].mean(axis=0).astype(np.float32)
            found[f"{title}/{emotion}/n"] = np.int64(chosen.sum())
    return found


def pick_examples(data: PackedDataset, faces: Faces, maps: np.ndarray) -> dict[str, np.ndarray]:
    """Return `<correct|wrong>/<predicted emotion>` to a map, float32 (S, S), and its `/row`.

    One of each kind, the first that is there; none of photographs, which are not shown one by one.
    """
    found: dict[str, np.ndarray] = {}
    if data.packed_regions is None:
        return found
    for row, label, pred, saliency in zip(faces.rows, faces.labels, faces.pred, maps, strict=True):
        key = f"{'correct' if label == pred else 'wrong'}/{data.emotions[pred]}"
        if key not in found:
            found |= {key: saliency, f"{key}/row": np.array(row)}
    return found


def get_folder(dirs: OutputDirs) -> Path:
    """Return the folder of the results."""
    return dirs.reports / "explain"


def _write_maps(path: Path, maps: Mapping[str, np.ndarray]) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, **maps)  # type: ignore[arg-type]
    write_atomically(path, content.getvalue())
