"""What networks say of faces drawn again with one factor changed, in a file that notebook 08 reads."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from demo_faces.counterfactuals import draw_counterfactuals, list_counterfactuals, name_factors
from fer_lib.analysis.robustness import open_network
from fer_lib.data.packed import PackedDataset, load_packed
from fer_lib.evaluation.predictions import read_table, write_table
from fer_lib.params import load_params
from fer_lib.paths import OutputDirs, get_output_dirs

_FEW = 16
"""Faces, up to which starting processes takes longer than drawing."""


def predict_variants(dataset: str, out_dir: str | Path | None = None) -> Path:
    """Write what every network of `robustness.audited` says of varied test faces; return the parquet file.

    Columns: row, label, person, factor, value (as text; of a pair, joined by + and by |), and per network
    `<network>/said`, the emotion named (as index), and `.../confidence`. Raises as
    `robustness.open_network`, and DataError for faces that were not drawn.
    """
    params, dirs, data = load_params(dataset), get_output_dirs(dataset, out_dir), load_packed(dataset)
    settings = params.robustness
    rows = draw_evenly(data, settings.n_variants, settings.seed)
    workers = (os.cpu_count() or 1) if len(rows) > _FEW else 1
    try:
        faces = draw_counterfactuals(data.index["source"].iloc[rows].tolist(), data.meta["size"], workers)
    except ValueError as error:
        raise DataError(f"{dataset}: {error}") from None
    variants, n = list_counterfactuals(), len(rows)
    table = {
        "row": np.repeat(rows, len(variants)),
        "label": np.repeat(data.labels[rows], len(variants)).astype(np.uint8),
        "person": np.repeat(data.persons[rows], len(variants)),
        "factor": [name_factors(changes) for changes in variants] * n,
        "value": ["|".join(map(str, changes.values())) for changes in variants] * n,
    }
    flat = list(faces.reshape(-1, *faces.shape[2:]))
    for name in settings.audited:
        probabilities = open_network(name, dirs, data)(flat)
        table[f"{name}/said"] = probabilities.argmax(axis=1).astype(np.uint8)
        table[f"{name}/confidence"] = probabilities.max(axis=1).round(3).astype(np.float32)
    path = get_variants_path(dirs)
    write_table(path, pd.DataFrame(table), data)
    return path


def draw_evenly(data: PackedDataset, n: int, seed: int) -> np.ndarray:
    """Return at most `n` test rows in order, as many of each class as there are, drawn by the seed."""
    rows = np.random.default_rng(seed).permutation(data.get_rows("test"))
    place = pd.Series(data.labels[rows]).groupby(data.labels[rows]).cumcount().to_numpy()
    return np.sort(rows[place < n // len(data.emotions)])


def get_variants_path(dirs: OutputDirs) -> Path:
    """Return the file of the answers."""
    return dirs.reports / "robustness" / "variants.parquet"


def read_variants(dirs: OutputDirs, data: PackedDataset, network: str, factor: str) -> pd.DataFrame:
    """Return the rows of one factor: row, label, person, value, and the network's said and confidence.

    Raises DataError when the stage has not run, or ran on other data.
    """
    table = read_table(get_variants_path(dirs), data, "vary")
    part = table[table["factor"] == factor].reset_index(drop=True)
    kept = part[["row", "label", "person", "value"]].astype({"label": np.int64})
    said = part[f"{network}/said"].astype(np.int64)
    return kept.assign(said=said, confidence=part[f"{network}/confidence"].astype(np.float64))
