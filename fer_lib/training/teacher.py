"""What the ensemble says of the training faces, for a student to learn from (Hinton et al. 2015)."""

from pathlib import Path

import numpy as np
import pandas as pd

from fer_lib.data.packed import load_packed
from fer_lib.files import write_atomically
from fer_lib.models.build import load_checkpoint
from fer_lib.params import load_params
from fer_lib.paths import get_output_dirs
from fer_lib.training.ensemble import fit_weights, vote
from fer_lib.training.recipes import TEACHER_NAME, check_match
from fer_lib.training.predict import FLIP, PLAIN, Predictor


def write_teacher(dataset: str, out_dir: str | Path | None = None) -> Path:
    """Write `models/<dataset>/teacher.parquet`: row, and `probability_<emotion>` of every training face.

    The members' soft vote with the weights that fit validation best, each seeing a face and its mirror image.
    Raises ModelError when a member has not been trained, or was trained on other data.
    """
    params, dirs, data = load_params(dataset), get_output_dirs(dataset, out_dir), load_packed(dataset)
    rows = {split: data.get_rows(split) for split in ("train", "val")}
    views = {"train": FLIP, "val": PLAIN}
    said: dict[str, list[np.ndarray]] = {split: [] for split in rows}
    for name in params.ensemble.members:
        checkpoint = load_checkpoint(dirs.models / name)
        check_match(checkpoint, data)
        predictor = Predictor(checkpoint.model, checkpoint.preprocessing, params.evaluation.batch_size)
        for split in rows:
            said[split].append(predictor.predict(data.faces, rows[split], views[split]))
    weights = fit_weights(np.stack(said["val"]), data.labels[rows["val"]])
    columns = [f"probability_{name}" for name in data.emotions]
    table = pd.DataFrame(vote(np.stack(said["train"]), weights).astype(np.float32), columns=columns)
    table.insert(0, "row", rows["train"])
    path = dirs.models / TEACHER_NAME
    write_atomically(path, table.to_parquet(index=False))
    return path
