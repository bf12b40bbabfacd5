"""Store predictions as parquet tables that carry the hash of their data, and predict validation and test.

Later stages read the tables instead of the networks. They are small and stand in Git: every score can be
checked, or computed in another way, without training anything again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fer_lib.data.packed import PackedDataset, load_packed
from fer_lib.errors import DataError, ModelError
from fer_lib.evaluation.perturbations import CLEAN, CONDITIONS
from fer_lib.files import write_atomically
from fer_lib.jobs import run_side_by_side
from fer_lib.metrics_file import read_metrics
from fer_lib.models.checkpoints import WEIGHTS_NAME
from fer_lib.params import Params, load_params
from fer_lib.paths import OutputDirs, get_output_dirs
from fer_lib.provenance import hash_file
from fer_lib.training.recipes import check_match, find_untrainable, get_metrics_name

SPLITS = ("val", "test")


def write_table(
    path: Path, frame: pd.DataFrame, data: PackedDataset, source: Mapping[str, Any] | None = None
) -> None:
    """Write a parquet table made of `data`, without its index, in as few bytes as keep every value.

    source: what else it was made by, plain values; `read_table` returns it in `attrs`, with the data's hash.
    """
    stamped = frame.copy(deep=False)
    stamped.attrs = {}  # pandas keeps them in the file's metadata
    stamped.attrs.update(source or {}, data_hash=data.data_hash)
    # Logits hardly repeat, but their first bytes do, which this encoding puts side by side. Values that do
    # repeat, such as the outputs of an INT8 network, take less as a dictionary. Rows grow in small steps.
    floats = stamped.select_dtypes("float")
    encodings = dict.fromkeys(floats.columns[floats.nunique() > floats.count() / 2], "BYTE_STREAM_SPLIT")
    encodings |= dict.fromkeys(stamped.select_dtypes("int64").columns, "DELTA_BINARY_PACKED")
    table, content = pa.Table.from_pandas(stamped, preserve_index=False), pa.BufferOutputStream()
    with pq.ParquetWriter(
        content,
        table.schema,
        compression="zstd",
        compression_level=19,
        column_encoding=encodings,
        use_dictionary=[name for name in stamped if name not in encodings],
        store_schema=False,  # it repeats, at length, what the file and pandas say of each column
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(table.schema.metadata)
    write_atomically(path, content.getvalue().to_pybytes())


def read_table(path: Path, data: PackedDataset, command: str, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Return a table of `write_table`, which `command` of `fer_lib` writes and which must have `columns`.

    Raises DataError when there is none, when it lacks a column, or when it was made of other data.
    """
    dataset = data.meta["dataset"]
    repair = f"run `python -m fer_lib {command} --dataset {dataset}` or `make results DATASET={dataset}`"
    if not path.is_file():
        raise DataError(f"{path}: expected what `{command}` writes, found none; {repair}")
    try:
        table = pd.read_parquet(path)
    except (pa.ArrowException, OSError, ValueError):
        raise DataError(f"{path}: expected a parquet file, found none that can be read; {repair}") from None
    found, expected = str(table.attrs.get("data_hash")), data.data_hash
    if found != expected:
        raise DataError(
            f"{path}: expected predictions on data hash {expected[:12]}, found {found[:12]}; {repair}"
        )
    lacking = [column for column in columns if column not in table]
    if lacking:
        raise DataError(f"{path}: expected a column {lacking[0]!r}, found none; {repair}")
    return table


@dataclass(frozen=True)
class Predictions:
    """The predictions of one network on the two splits, each in row order.

    logits: split to float32 (N, C), of one view.   views: float32 (N, C), the mean probabilities over
    `predict.ALL`, of test.   conditions: `CLEAN` and every name in `CONDITIONS` to int (N,), predicted
    classes, of validation.   source: data_hash, trained_at_commit, weights_sha256, and training, the
    parameters used.
    """

    logits: dict[str, np.ndarray]
    views: np.ndarray
    conditions: dict[str, np.ndarray]
    source: dict[str, Any]


def predict_networks(dataset: str, out_dir: str | Path | None = None) -> list[str]:
    """Predict validation and test with each of `evaluation.networks`, side by side; return their names.

    Raises as `predict_splits`.
    """
    networks = list_networks(load_params(dataset), load_packed(dataset))
    run_side_by_side({name: partial(predict_splits, name, dataset, out_dir) for name in networks}, "predict")
    return networks


def list_networks(params: Params, data: PackedDataset) -> list[str]:
    """Return those of `evaluation.networks` that these faces can train."""
    lacking = find_untrainable(params, data)
    return [name for name in params.evaluation.networks if name not in lacking]


def predict_splits(network: str, dataset: str, out_dir: str | Path | None = None) -> Path:
    """Predict validation and test with a trained network; return the file, `predictions/<network>.parquet`.

    Raises ModelError when it has not been trained, or was trained on other data, and ParamsError for an
    unknown data set.
    """
    # Loaded by the process that predicts: pages read predictions without it, in half the time.
    from fer_lib.models.build import load_checkpoint
    from fer_lib.training.predict import ALL, Predictor

    params, dirs, data = load_params(dataset), get_output_dirs(dataset, out_dir), load_packed(dataset)
    checkpoint = load_checkpoint(dirs.models / network)
    check_match(checkpoint, data)
    predictor = Predictor(checkpoint.model, checkpoint.preprocessing, params.evaluation.batch_size)
    logits = {split: predictor.predict_logits(data.faces, data.get_rows(split)) for split in SPLITS}
    views = predictor.predict(data.faces, data.get_rows("test"), ALL)
    conditions, validation = {}, data.faces[data.get_rows("val")]
    for name, change in CONDITIONS.items():
        changed = [change(face) for face in validation]
        conditions[name] = predictor.predict_logits(changed).argmax(axis=1)
    source = {
        "trained_at_commit": checkpoint.config["git_commit"],
        "weights_sha256": hash_weights(dirs.models / network),
        "training": checkpoint.config["params"]["training"],
    }
    path = get_predictions_path(dirs, network)
    write_predictions(path, data, Predictions(logits, views, conditions, source))
    return path


def hash_weights(folder: Path) -> str:
    """Return the sha256 (hex) of a checkpoint's weights."""
    return hash_file(folder / WEIGHTS_NAME)


def get_predictions_path(dirs: OutputDirs, network: str) -> Path:
    """Return where `predict_splits` writes."""
    return dirs.reports / "predictions" / f"{network}.parquet"


def read_all_predictions(params: Params, dirs: OutputDirs, data: PackedDataset) -> dict[str, Predictions]:
    """Return the predictions by network, of `evaluation.networks`.

    Raises DataError when one has none or for those on other faces, and ModelError for those of another
    training than the network's metrics are of.
    """
    found = {}
    for name in list_networks(params, data):
        path = get_predictions_path(dirs, name)
        found[name] = read_predictions(path, data)
        predicted_by = found[name].source["trained_at_commit"]
        trained_at = read_metrics(dirs, get_metrics_name(name))["trained_at_commit"]
        if predicted_by != trained_at:
            raise ModelError(
                f"{path}: made by a training at {predicted_by}, but the metrics are of one at {trained_at}; "
                "run `make results` again"
            )
    return found


def write_predictions(path: Path, data: PackedDataset, predictions: Predictions) -> None:
    """Write a table: row of the store, split, label (as index), and a column per emotion or condition.

    Those are `logit_<emotion>`; `views_<emotion>`, empty for validation; and `under_<condition>`, the
    predicted class (as index), empty for test.
    """
    columns = _name_columns(data)
    conditions = np.column_stack([predictions.conditions[name] for name in CONDITIONS])
    further = {
        "val": pd.DataFrame(conditions, columns=columns["under"]).astype("UInt8"),
        "test": pd.DataFrame(predictions.views.astype(np.float32), columns=columns["views"]),
    }
    frames = []
    for split, logits in predictions.logits.items():
        rows = data.get_rows(split)
        frame = pd.DataFrame({"row": rows, "split": split, "label": data.labels[rows].astype(np.uint8)})
        frame[columns["logit"]] = logits.astype(np.float32)
        frames.append(pd.concat([frame, further[split]], axis=1))
    write_table(path, pd.concat(frames, ignore_index=True), data, predictions.source)


def read_predictions(path: Path, data: PackedDataset) -> Predictions:
    """Return the predictions in a file of `write_predictions`. Raises DataError as `read_table` does."""
    columns = _name_columns(data)
    expected = [name for names in columns.values() for name in names]
    table = read_table(path, data, "predict-networks", expected)
    parts = {split: table[table["split"] == split] for split in SPLITS}
    logits = {split: part[columns["logit"]].to_numpy(np.float32, copy=True) for split, part in parts.items()}
    conditions = {CLEAN: logits["val"].argmax(axis=1)}
    for name, column in zip(CONDITIONS, columns["under"], strict=True):
        conditions[name] = parts["val"][column].to_numpy(np.int64)
    views = parts["test"][columns["views"]].to_numpy(np.float32, copy=True)
    return Predictions(logits, views, conditions, {str(key): value for key, value in table.attrs.items()})


def _name_columns(data: PackedDataset) -> dict[str, list[str]]:
    named = {"logit": data.emotions, "views": data.emotions, "under": CONDITIONS}
    return {kind: [f"{kind}_{name}" for name in names] for kind, names in named.items()}
