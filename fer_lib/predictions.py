"""The logits of a network for whole splits, as a table that later stages read instead of predicting again."""

import io
from pathlib import Path

import numpy as np
import pandas as pd

from fer_lib.errors import ModelError
from fer_lib.files import write_atomically
from fer_lib.models import Checkpoint
from fer_lib.packed import PackedDataset


def check_match(checkpoint: Checkpoint, data: PackedDataset) -> None:
    """Raise ModelError unless `data` are the ones the checkpoint was trained on: the same faces and splits.

    Packed anew, a face may have moved from training to test; a score on such a test split is worth nothing.
    """
    trained_on, found = checkpoint.config["data_hash"], data.data_hash
    if trained_on != found:
        raise ModelError(
            f"checkpoint and data differ: trained on data hash {trained_on[:12]}, found {found[:12]}; "
            "train again on these data"
        )


def write_predictions(
    path: Path, data: PackedDataset, rows: dict[str, np.ndarray], logits: dict[str, dict[str, np.ndarray]]
) -> None:
    """Write a parquet file: model, row, split, label (as index), one float32 column `logit_<emotion>` each.

    rows: split to int (N,) rows of the store.   logits: model to split to float32 (N, C), in the same order.
    """
    frames = []
    for model, of_model in logits.items():
        for split, numbers in rows.items():
            frame = pd.DataFrame(of_model[split], columns=[f"logit_{name}" for name in data.emotions])
            frame.insert(0, "model", model)
            frame.insert(1, "row", numbers)
            frame.insert(2, "split", split)
            frame.insert(3, "label", data.labels[numbers])
            frames.append(frame)
    content = io.BytesIO()
    pd.concat(frames, ignore_index=True).to_parquet(content, index=False)
    write_atomically(path, content.getvalue())
