"""What the tests of heat maps came to: measures with intervals, and the parts each emotion rests on."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from fer_lib.analysis.explain_study import CENTRE, CHOSEN, LAST, RANDOM, get_folder
from fer_lib.analysis.faithfulness import N_STEPS
from fer_lib.analysis.regions import BACKGROUND, PARTS, REST
from fer_lib.data.packed import PackedDataset
from fer_lib.evaluation.bootstrap import draw_weights
from fer_lib.evaluation.predictions import read_table
from fer_lib.metrics_file import flatten_interval
from fer_lib.paths import OutputDirs

MAPS = (CHOSEN, LAST, RANDOM, CENTRE)
MEASURES = ("deletion", "insertion", "energy", "pointing")
KEYS = {CHOSEN: "chosen", LAST: "last_stage", RANDOM: "random", CENTRE: "face_centre"}
"""How a map is called in the metrics."""

NEUTRAL = "neutral"
"""No action unit makes it, so its regions say where others would show: left out of energy and pointing."""

Interval = tuple[float, float, float]


def read_results(dirs: OutputDirs, data: PackedDataset, name: str) -> pd.DataFrame:
    """Return a table of `explain_study`: choice, faces, randomised or stability.

    Raises DataError when the stage has not run, or ran on other data.
    """
    return read_table(get_folder(dirs) / f"{name}.parquet", data, "test-heatmaps")


def read_maps(dirs: OutputDirs, name: str) -> dict[str, np.ndarray]:
    """Return `maps` or `examples`, as `average_maps` and `pick_examples` of `explain_study` describe them."""
    with np.load(get_folder(dirs) / f"{name}.npz") as stored:
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
) -> dict[tuple[str, str], dict[str, Interval]]:
    """Return (map, rival) to measure to what the map gains over the rival on the same faces; 95 % bounds.

    The chosen map against each other one, and the last stage's against those that saw no network. A gain is
    an improvement: of deletion, a smaller area.
    """
    weights, columns = _prepare(faces, data, n_resamples, seed)
    pairs = [(CHOSEN, rival) for rival in MAPS[1:]] + [(LAST, rival) for rival in (RANDOM, CENTRE)]
    gains: dict[tuple[str, str], dict[str, Interval]] = {pair: {} for pair in pairs}
    for name, rival in pairs:
        for measure in MEASURES:
            sign = -1 if measure == "deletion" else 1
            difference = sign * (columns[name, measure] - columns[rival, measure])
            gains[name, rival][measure] = _summarise(difference, weights * _select(faces, data, measure))
    return gains


def average_curves(
    faces: pd.DataFrame, data: PackedDataset, n_resamples: int, seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """Return `deletion` and `insertion` to map to float (3, N_STEPS + 1): mean, low, high; 95 % bounds."""
    weights, _ = _prepare(faces, data, n_resamples, seed)
    shares = weights / weights.sum(axis=1, keepdims=True)
    found: dict[str, dict[str, np.ndarray]] = {}
    for title in ("deletion", "insertion"):
        names = [f"{title}/{step}" for step in range(N_STEPS + 1)]
        means = {name: shares @ faces.loc[faces["map"] == name, names].to_numpy(float) for name in MAPS}
        found[title] = {
            name: np.vstack([values[0], np.quantile(values[1:], [0.025, 0.975], axis=0)])
            for name, values in means.items()
        }
    return found


def score_parts(
    faces: pd.DataFrame, data: PackedDataset, is_right: bool, min_faces: int, n_resamples: int, seed: int
) -> dict[str, dict[str, Interval]]:
    """Return emotion named to part to how much denser the chosen map is there than over the whole picture.

    1: as much of the map as of the picture. Emotions named fewer times, rightly or wrongly, are left out.
    """
    weights, columns = _prepare(faces, data, n_resamples, seed)
    chosen = faces[faces["map"] == CHOSEN]
    found = {}
    for index, emotion in enumerate(data.emotions):
        taken = ((chosen["said"] == index) & ((chosen["label"] == chosen["said"]) == is_right)).to_numpy()
        if taken.sum() >= min_faces:
            of_these = weights * taken
            shares = {
                name: [
                    _average(values, of_these)
                    for values in (columns[CHOSEN, f"part_{name}"], chosen[f"area_{name}"].to_numpy(float))
                ]
                for name in list_parts()
            }
            found[emotion] = {
                name: _bound(of_map / of_picture) for name, (of_map, of_picture) in shares.items()
            }
    return found


def tabulate_parts(scores: Mapping[str, Mapping[str, Interval]]) -> pd.DataFrame:
    """Return the densities of `score_parts` alone, emotion named by part."""
    rows = {emotion: {name: values[0] for name, values in row.items()} for emotion, row in scores.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=list_parts()).rename_axis("emotion named")


def summarise_background(
    faces: pd.DataFrame, data: PackedDataset, n_resamples: int, seed: int
) -> dict[str, Interval]:
    """Return shares that lie outside the face, where there are any.

    `right`, `wrong`: of the chosen map, by whether the emotion named is right.   `area`: of the picture.
    `gap`: wrong minus right among faces that were given the same emotion, weighted by how many were wrong.
    """
    weights, columns = _prepare(faces, data, n_resamples, seed)
    chosen = faces[faces["map"] == CHOSEN]
    share, said = columns[CHOSEN, f"part_{BACKGROUND}"], chosen["said"].to_numpy()
    is_right = (chosen["label"] == chosen["said"]).to_numpy()
    means = {
        title: _average(share, weights * mask)
        for title, mask in {"right": is_right, "wrong": ~is_right}.items()
    }
    means["area"] = _average(chosen[f"area_{BACKGROUND}"].to_numpy(float), weights)
    gaps, sizes = [], []
    for index in np.unique(said):
        of_emotion = weights * (said == index)
        gap = _average(share, of_emotion * ~is_right) - _average(share, of_emotion * is_right)
        gaps.append(np.nan_to_num(gap))
        sizes.append(np.where(np.isnan(gap), 0.0, (of_emotion * ~is_right).sum(axis=1)))
    total = np.sum(sizes, axis=0)
    weighted = np.sum(np.multiply(gaps, sizes), axis=0)
    means["gap"] = np.divide(weighted, total, out=np.full_like(total, np.nan), where=total > 0)
    return {title: _bound(values) for title, values in means.items() if not np.isnan(values[0])}


def flatten_scores(
    scores: Mapping[str, Mapping[str, Interval]], gains: Mapping[tuple[str, str], Mapping[str, Interval]]
) -> dict[str, float]:
    """Return `<map>.<measure>` and `<map>.<measure>.gain_over_<rival>` with `_lo` and `_hi`."""
    flat = {}
    for name, measures in scores.items():
        for measure, values in measures.items():
            flat |= flatten_interval(f"{KEYS[name]}.{measure}", values)
    for (name, rival), measures in gains.items():
        for measure, values in measures.items():
            flat |= flatten_interval(f"{KEYS[name]}.{measure}.gain_over_{KEYS[rival]}", values)
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
    if np.isnan(means).all():
        return (float("nan"),) * 3
    low, high = np.nanquantile(means[1:], [0.025, 0.975])
    return float(means[0]), float(low), float(high)


def summarise_columns(
    table: pd.DataFrame, data: PackedDataset, n_resamples: int, seed: int
) -> dict[str, Interval]:
    """Return column to (mean over faces, low, high), 95 % bounds; of tables `randomised` and `stability`.

    Flat maps, NaN, do not count.
    """
    drawn = np.concatenate(list(draw_weights(len(table), n_resamples, seed, data.persons[table["row"]])))
    weights = np.concatenate([np.ones((1, len(table))), drawn])
    found = {}
    for name, values in table.drop(columns="row").items():
        known = values.notna().to_numpy()
        if known.any():
            found[str(name)] = _summarise(values.fillna(0).to_numpy(float), weights * known)
    return found
