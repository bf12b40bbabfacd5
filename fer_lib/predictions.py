"""What a network says of validation and test, in a file that later stages read instead of the network.

The file is small and stands in Git: every score of a network can be checked, or computed in another way,
without training it again.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fer_lib.conditions import CONDITIONS, predict_conditions
from fer_lib.errors import FerError, ModelError
from fer_lib.files import write_atomically
from fer_lib.inference import predict_logits
from fer_lib.models import load_checkpoint
from fer_lib.packed import PackedDataset, load_packed
from fer_lib.params import Params, load_params
from fer_lib.paths import OutputDirs, get_output_dirs
from fer_lib.recipes import BASELINE, check_match
from fer_lib.views import predict_views

SPLITS = ("val", "test")


@dataclass(frozen=True)
class Predictions:
    """What one network says of the faces of the two splits, each in row order.

    logits: split to float32 (N, C), of one view.   views: float32 (N, C), the mean probabilities over
    `views.ALL`, of test.   conditions: name in `CONDITIONS` to int (N,), the emotion named, of validation.
    """

    logits: dict[str, np.ndarray]
    views: np.ndarray
    conditions: dict[str, np.ndarray]


def predict_splits(network: str, dataset: str, out_dir: str | Path | None = None) -> Path:
    """Let a trained network name validation and test; return the file, `predictions/<network>.parquet`.

    Raises ModelError when it has not been trained, or was trained on other data, and ParamsError for an
    unknown data set.
    """
    params, dirs, data = load_params(dataset), get_output_dirs(dataset, out_dir), load_packed(dataset)
    checkpoint = load_checkpoint(dirs.models / network)
    check_match(checkpoint, data)
    rows = {split: data.get_rows(split) for split in SPLITS}
    asked = (checkpoint.preprocessing, params.evaluation.batch_size)
    predictions = Predictions(
        {split: predict_logits(checkpoint.model, data, rows[split], *asked) for split in SPLITS},
        predict_views(checkpoint.model, data, rows["test"], *asked),
        predict_conditions(checkpoint.model, data, rows["val"], *asked),
    )
    path = get_predictions_path(dirs, network)
    write_predictions(path, data, predictions)
    return path


def get_predictions_path(dirs: OutputDirs, network: str) -> Path:
    """Return where `predict_splits` writes."""
    return dirs.reports / "predictions" / f"{network}.parquet"


def list_predicted(params: Params, dirs: OutputDirs) -> list[str]:
    """Return the networks whose predictions there are: the baseline, then the recipes in their order.

    Raises FerError when the baseline has none.
    """
    baseline = get_predictions_path(dirs, BASELINE)
    if not baseline.is_file():
        command = f"python -m fer_lib predict-splits {BASELINE} --dataset {dirs.reports.name}"
        raise FerError(f"{baseline}: not found; run `{command} --out-dir {dirs.reports.parents[1]}` first")
    return [BASELINE, *(name for name in params.recipes if get_predictions_path(dirs, name).is_file())]


def write_predictions(path: Path, data: PackedDataset, predictions: Predictions) -> None:
    """Write a parquet file: row of the store, split, label (as index), and per emotion or condition a column.

    Those are `logit_<emotion>`; `views_<emotion>`, empty for validation; `as_<condition>`, empty for test.
    """
    frames = []
    for split, logits in predictions.logits.items():
        rows = data.get_rows(split)
        frame = pd.DataFrame({"row": rows, "split": split, "label": data.labels[rows].astype(np.uint8)})
        parts = [frame, _name_columns("logit", data, logits)]
        if split == "test":
            parts.append(_name_columns("views", data, predictions.views))
        else:
            named = {f"as_{name}": values for name, values in predictions.conditions.items()}
            parts.append(pd.DataFrame(named).astype("UInt8"))
        frames.append(pd.concat(parts, axis=1))
    content = io.BytesIO()
    pd.concat(frames, ignore_index=True).to_parquet(content, index=False, compression="zstd")
    write_atomically(path, content.getvalue())


def read_predictions(path: Path, data: PackedDataset) -> Predictions:
    """Return the predictions in a file of `write_predictions`.

    Raises ModelError when there is none, or when it is of other faces than those of `data`.
    """
    if not path.is_file():
        raise ModelError(f"{path}: expected a network's predictions, found none; run `make repro`")
    table = pd.read_parquet(path)
    parts = {split: table[table["split"] == split] for split in SPLITS}
    for split, part in parts.items():
        rows = data.get_rows(split)
        if not (np.array_equal(part["row"], rows) and np.array_equal(part["label"], data.labels[rows])):
            raise ModelError(f"{path}: made from other {split} faces; run `make repro` again")
    logits = {split: _take_columns("logit", data, part) for split, part in parts.items()}
    conditions = {name: parts["val"][f"as_{name}"].to_numpy(np.int64) for name in CONDITIONS}
    return Predictions(logits, _take_columns("views", data, parts["test"]), conditions)


def _name_columns(kind: str, data: PackedDataset, values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(values.astype(np.float32), columns=[f"{kind}_{name}" for name in data.emotions])


def _take_columns(kind: str, data: PackedDataset, table: pd.DataFrame) -> np.ndarray:
    return table[[f"{kind}_{name}" for name in data.emotions]].to_numpy(np.float32, copy=True)
