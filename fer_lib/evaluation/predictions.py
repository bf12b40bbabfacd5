"""What a network says of validation and test, in a file that later stages read instead of the network.

The file is small and stands in Git: every score of a network can be checked, or computed in another way,
without training it again.
"""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from fer_lib.data.packed import PackedDataset, load_packed
from fer_lib.errors import FerError, ModelError
from fer_lib.evaluation.conditions import CONDITIONS, predict_conditions
from fer_lib.files import write_atomically
from fer_lib.metrics_file import read_metrics
from fer_lib.models.build import load_checkpoint
from fer_lib.models.checkpoints import WEIGHTS_NAME
from fer_lib.params import Params, load_params
from fer_lib.paths import OutputDirs, get_output_dirs
from fer_lib.training.predict import predict_logits
from fer_lib.training.recipes import BASELINE, check_match, get_metrics_name
from fer_lib.training.views import predict_views

SPLITS = ("val", "test")
SOURCE_KEY = b"fer_lib"
"""Where the file's metadata say which network spoke."""


@dataclass(frozen=True)
class Predictions:
    """What one network says of the faces of the two splits, each in row order.

    logits: split to float32 (N, C), of one view.   views: float (N, C), the mean probabilities over
    `views.ALL`, of test.   conditions: name in `CONDITIONS` to int (N,), the emotion named, of validation.
    source: data_hash, trained_at_commit, weights_sha256, and training, the parameters used.
    """

    logits: dict[str, np.ndarray]
    views: np.ndarray
    conditions: dict[str, np.ndarray]
    source: dict[str, Any]


def predict_splits(network: str, dataset: str, out_dir: str | Path | None = None) -> Path:
    """Predict validation and test with a trained network; return the file, `predictions/<network>.parquet`.

    Raises ModelError when it has not been trained, or was trained on other data, and ParamsError for an
    unknown data set.
    """
    params, dirs, data = load_params(dataset), get_output_dirs(dataset, out_dir), load_packed(dataset)
    checkpoint = load_checkpoint(dirs.models / network)
    check_match(checkpoint, data)
    rows = {split: data.get_rows(split) for split in SPLITS}
    asked = (checkpoint.preprocessing, params.evaluation.batch_size)
    source = {
        "data_hash": checkpoint.config["data_hash"],
        "trained_at_commit": checkpoint.config["git_commit"],
        "weights_sha256": hash_weights(dirs.models / network),
        "training": checkpoint.config["params"]["training"],
    }
    predictions = Predictions(
        {split: predict_logits(checkpoint.model, data, rows[split], *asked) for split in SPLITS},
        predict_views(checkpoint.model, data, rows["test"], *asked),
        predict_conditions(checkpoint.model, data, rows["val"], *asked),
        source,
    )
    path = get_predictions_path(dirs, network)
    write_predictions(path, data, predictions)
    return path


def hash_weights(folder: Path) -> str:
    """Return the sha256 (hex) of a checkpoint's weights."""
    return hashlib.sha256((folder / WEIGHTS_NAME).read_bytes()).hexdigest()


def get_predictions_path(dirs: OutputDirs, network: str) -> Path:
    """Return where `predict_splits` writes."""
    return dirs.reports / "predictions" / f"{network}.parquet"


def read_all_predictions(params: Params, dirs: OutputDirs, data: PackedDataset) -> dict[str, Predictions]:
    """Return the predictions there are by network: the baseline's, then the recipes' in their order.

    Raises FerError when the baseline has none, and ModelError for those of other faces, or of another
    training than the network's metrics are of.
    """
    baseline = get_predictions_path(dirs, BASELINE)
    if not baseline.is_file():
        command = f"python -m fer_lib predict-splits {BASELINE} --dataset {dirs.reports.name}"
        raise FerError(f"{baseline}: not found; run `{command} --out-dir {dirs.reports.parents[1]}` first")
    found = {}
    for name in (BASELINE, *params.recipes):
        path = get_predictions_path(dirs, name)
        if not path.is_file():
            continue
        found[name] = read_predictions(path, data)
        predicted_by = found[name].source["trained_at_commit"]
        trained_at = read_metrics(dirs, get_metrics_name(name))["trained_at_commit"]
        if predicted_by != trained_at:
            raise ModelError(
                f"{path}: made by a training at {predicted_by}, but the metrics are of one at {trained_at}; "
                "run `make repro` again"
            )
    return found


def write_predictions(path: Path, data: PackedDataset, predictions: Predictions) -> None:
    """Write a parquet file: row of the store, split, label (as index), and per emotion or condition a column.

    Those are `logit_<emotion>`; `views_<emotion>`, empty for validation; and `under_<condition>`, the emotion
    named (as index), empty for test.
    """
    frames = []
    for split, logits in predictions.logits.items():
        rows = data.get_rows(split)
        frame = pd.DataFrame({"row": rows, "split": split, "label": data.labels[rows].astype(np.uint8)})
        parts = [frame, _name_columns("logit", data, logits)]
        if split == "test":
            parts.append(_name_columns("views", data, predictions.views))
        else:
            named = {f"under_{name}": values for name, values in predictions.conditions.items()}
            parts.append(pd.DataFrame(named).astype("UInt8"))
        frames.append(pd.concat(parts, axis=1))
    table = pa.Table.from_pandas(pd.concat(frames, ignore_index=True), preserve_index=False)
    source = json.dumps(predictions.source, sort_keys=True).encode()
    content = io.BytesIO()
    parquet.write_table(
        table.replace_schema_metadata({**table.schema.metadata, SOURCE_KEY: source}),
        content,
        compression="zstd",
    )
    write_atomically(path, content.getvalue())


def read_predictions(path: Path, data: PackedDataset) -> Predictions:
    """Return the predictions in a file of `write_predictions`.

    Raises ModelError when there is none, when it lacks what is read here, or when it is of other faces than
    those of `data`.
    """
    if not path.is_file():
        raise ModelError(f"{path}: expected a network's predictions, found none; run `make repro`")
    try:
        stored = parquet.read_table(path)
        source, table = json.loads(stored.schema.metadata[SOURCE_KEY]), stored.to_pandas()
        parts = {split: table[table["split"] == split] for split in SPLITS}
        logits = {split: _take_columns("logit", data, part) for split, part in parts.items()}
        conditions = {name: parts["val"][f"under_{name}"].to_numpy(np.int64) for name in CONDITIONS}
        views = _take_columns("views", data, parts["test"])
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        detail = " ".join(str(error).split())[:120]
        raise ModelError(f"{path}: expected predictions of this code: {detail}; run `make repro`") from None
    if source["data_hash"] != data.data_hash:
        made_of, found = source["data_hash"][:12], data.data_hash[:12]
        raise ModelError(f"{path}: made of data hash {made_of}, found {found}; run `make repro` again")
    return Predictions(logits, views, conditions, source)


def _name_columns(kind: str, data: PackedDataset, values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(values.astype(np.float32), columns=[f"{kind}_{name}" for name in data.emotions])


def _take_columns(kind: str, data: PackedDataset, table: pd.DataFrame) -> np.ndarray:
    return table[[f"{kind}_{name}" for name in data.emotions]].to_numpy(np.float32, copy=True)
