"""What the tests of heat maps came to: measures with intervals, and the parts each emotion rests on."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fer_lib.errors import FerError
from fer_lib.explain_study import CENTRE, CHOSEN, LAST, RANDOM, get_folder
from fer_lib.packed import PackedDataset
from fer_lib.paths import OutputDirs
from fer_lib.regions import BACKGROUND, PARTS, REST
from fer_lib.resampling import draw_weights

MAPS = (CHOSEN, LAST, RANDOM, CENTRE)
MEASURES = ("deletion", "insertion", "energy", "pointing")
KEYS = {CHOSEN: "chosen", LAST: "last_stage", RANDOM: "random", CENTRE: "face_centre"}
"""How a map is called in the metrics."""

NEUTRAL = "neutral"
"""No action unit makes it, so its regions say where others would show: left out of energy and pointing."""

Interval = tuple[float, float, float]


def read_results(dirs: OutputDirs, name: str) -> pd.DataFrame:
    """Return a table of `explain_study`: choice, faces, randomised or stability.

    Raises FerError when the stage has not run.
    """
    path = get_folder(dirs) / f"{name}.parquet"
    if not path.is_file():
        raise FerError(f"{path}: not found; run `python -m fer_lib test-heatmaps` or `make repro` first")
    return pd.read_parquet(path)


def read_maps(dirs: OutputDirs) -> dict[str, np.ndarray]:
    """Return the mean maps, as `explain_study.average_maps` describes them."""
    with np.load(get_folder(dirs) / "maps.npz") as stored:
        return dict(stored)


def tabulate_choice(choice: pd.DataFrame) -> pd.DataFrame:
    """Return one row per method and stage, the coarsest last; the larger the difference, the better."""
    table = choice.groupby(["reduction", "stage", "method"], sort=True)[["deletion", "insertion"]].mean()
    table["insertion minus deletion"] = table["insertion"] - table["deletion"]
    return table.reset_index()


def score_maps(
    faces: pd.DataFrame, data: PackedDataset, n_resamples: int, seed: int
) -> dict[str, dict[str, Interval]]:
    """Return map to measure to (mean, low, high); the latter two are 95 % bootstrap bounds.

    energy and pointing: over faces named rightly, without neutral ones.
    """
    weights, columns = _prepare(faces, data, n_resamples, seed)
    return {
        name: {
            measure: _summarise(columns[name, measure], weights * _select(faces, data, measure))
            for measure in MEASURES
        }
        for name in MAPS
    }


def compare_maps(
    faces: pd.DataFrame, data: PackedDataset, n_resamples: int, seed: int
) -> dict[str, dict[str, Interval]]:
    """Return rival to measure to what the chosen map gains over it on the same faces, with 95 % bounds.

    A gain is an improvement: of deletion, a smaller area.
    """
    weights, columns = _prepare(faces, data, n_resamples, seed)
    gains: dict[str, dict[str, Interval]] = {}
    for rival in MAPS[1:]:
        gains[rival] = {}
        for measure in MEASURES:
            sign = -1 if measure == "deletion" else 1
            difference = sign * (columns[CHOSEN, measure] - columns[rival, measure])
            gains[rival][measure] = _summarise(difference, weights * _select(faces, data, measure))
    return gains


def tabulate_parts(
    faces: pd.DataFrame, emotions: Sequence[str], is_right: bool, min_faces: int
) -> pd.DataFrame:
    """Return emotion named by part: how much denser the chosen map is there than over the whole face picture.

    1: as much of the map as of the picture. Rows of emotions named fewer times are left out.
    """
    chosen = faces[faces["map"] == CHOSEN]
    chosen = chosen[(chosen["label"] == chosen["said"]) == is_right]
    rows = {}
    for index, emotion in enumerate(emotions):
        part = chosen[chosen["said"] == index]
        if len(part) >= max(1, min_faces):
            rows[emotion] = {
                name: part[f"part_{name}"].mean() / part[f"area_{name}"].mean() for name in list_parts()
            }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list_parts()).rename_axis("emotion named")


def summarise_background(
    faces: pd.DataFrame, data: PackedDataset, n_resamples: int, seed: int
) -> dict[str, Interval]:
    """Return the share of the chosen map outside the face: `right`, `wrong`, and `gap`, their difference."""
    weights, columns = _prepare(faces, data, n_resamples, seed)
    chosen = faces[faces["map"] == CHOSEN]
    share = columns[CHOSEN, f"part_{BACKGROUND}"]
    is_right = (chosen["label"] == chosen["said"]).to_numpy()
    means = {
        title: _average(share, weights * mask)
        for title, mask in {"right": is_right, "wrong": ~is_right}.items()
    }
    means["gap"] = means["wrong"] - means["right"]
    return {title: _bound(values) for title, values in means.items()}


def flatten(scores: Mapping[str, Mapping[str, Interval]], prefix: str = "") -> dict[str, float]:
    """Return `<map>.<measure><prefix>` with `_lo` and `_hi` as flat metrics."""
    flat: dict[str, Any] = {}
    for name, measures in scores.items():
        for measure, values in measures.items():
            for end, value in zip(("", "_lo", "_hi"), values, strict=True):
                flat[f"{KEYS[name]}.{measure}{prefix}{end}"] = value
    return flat


def list_parts() -> list[str]:
    """Return the parts of a picture: those of the face, the rest of it, the background."""
    return [*PARTS, REST, BACKGROUND]


def _prepare(
    faces: pd.DataFrame, data: PackedDataset, n_resamples: int, seed: int
) -> tuple[np.ndarray, dict[tuple[str, str], np.ndarray]]:
    """Return weights (1 + R, N), the first row ones, and (map, column) to float (N,)."""
    parts = dict(list(faces.groupby("map", sort=False)))
    rows = parts[CHOSEN]["row"].to_numpy()
    drawn = np.concatenate(list(draw_weights(len(rows), n_resamples, seed, data.persons[rows])))
    names = [*MEASURES, *(f"part_{part}" for part in list_parts())]
    columns = {(name, key): part[key].to_numpy(float) for name, part in parts.items() for key in names}
    return np.concatenate([np.ones((1, len(rows))), drawn]), columns


def _select(faces: pd.DataFrame, data: PackedDataset, measure: str) -> np.ndarray:
    chosen = faces[faces["map"] == CHOSEN]
    if measure in ("deletion", "insertion"):
        return np.ones(len(chosen))
    neutral = data.emotions.index(NEUTRAL)
    return ((chosen["label"] == chosen["said"]) & (chosen["label"] != neutral)).to_numpy(float)


def _average(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = weights.sum(axis=1)
    return np.divide(weights @ values, total, out=np.full(len(weights), np.nan), where=total > 0)


def _summarise(values: np.ndarray, weights: np.ndarray) -> Interval:
    return _bound(_average(values, weights))


def _bound(means: np.ndarray) -> Interval:
    low, high = np.nanquantile(means[1:], [0.025, 0.975])
    return float(means[0]), float(low), float(high)


def summarise_columns(table: pd.DataFrame, n_resamples: int, seed: int) -> dict[str, Interval]:
    """Return column to (mean over faces, low, high), 95 % bounds; of tables `randomised` and `stability`."""
    drawn = np.concatenate(list(draw_weights(len(table), n_resamples, seed)))
    weights = np.concatenate([np.ones((1, len(table))), drawn])
    return {name: _summarise(table[name].to_numpy(float), weights) for name in table}
