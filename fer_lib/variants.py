"""What networks say of faces drawn again with one factor changed, in a file that notebook 08 reads."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from fer_lib.datasets.demo_variants import draw_variants, list_variants, name_factors
from fer_lib.errors import FerError
from fer_lib.files import write_atomically
from fer_lib.packed import load_packed
from fer_lib.params import load_params
from fer_lib.paths import OutputDirs, get_output_dirs
from fer_lib.robustness import open_network

_FEW = 16
"""Faces, up to which starting processes takes longer than drawing."""


def predict_variants(dataset: str, out_dir: str | Path | None = None) -> Path:
    """Write what every network of `robustness.audited` says of varied test faces; return the parquet file.

    Columns: row, label, person, factor, value (as text; of a pair, joined by + and by |), and per network
    `<network>/said`, the emotion named (as index), and `.../confidence`. Where faces were not drawn the table
    is empty. Raises as `robustness.open_network`.
    """
    params, dirs, data = load_params(dataset), get_output_dirs(dataset, out_dir), load_packed(dataset)
    settings = params.robustness
    path = get_variants_path(dirs)
    if data.meta["layout"] != "demo":
        write_atomically(path, pd.DataFrame({"row": []}).to_parquet(index=False))
        return path
    rows = data.get_rows("test")
    rng = np.random.default_rng(settings.seed)
    rows = np.sort(rng.choice(rows, min(settings.n_variants, len(rows)), replace=False))
    faces = draw_variants(
        data.index["source"].iloc[rows].tolist(),
        data.meta["size"],
        os.cpu_count() or 1 if len(rows) > 16 else 1,
    )
    variants, n = list_variants(), len(rows)
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
    write_atomically(path, pd.DataFrame(table).to_parquet(index=False, compression="zstd"))
    return path


def get_variants_path(dirs: OutputDirs) -> Path:
    """Return the file of the answers."""
    return dirs.reports / "robustness" / "variants.parquet"


def read_variants(dirs: OutputDirs, network: str, factor: str) -> pd.DataFrame:
    """Return the rows of one factor: row, label, person, value, and the network's said and confidence.

    Raises FerError when the stage has not run.
    """
    path = get_variants_path(dirs)
    if not path.is_file():
        raise FerError(f"{path}: not found; run `python -m fer_lib vary` or `make repro` first")
    table = pd.read_parquet(path)
    part = table[table["factor"] == factor].reset_index(drop=True)
    kept = part[["row", "label", "person", "value"]].astype({"label": np.int64})
    said = part[f"{network}/said"].astype(np.int64)
    return kept.assign(said=said, confidence=part[f"{network}/confidence"].astype(np.float64))
