from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from torch import nn

from fer_lib.errors import ModelError
from fer_lib.models import Checkpoint
from fer_lib.paper import EPOCHS, compare_recipe
from fer_lib.params import load_params
from fer_lib.predictions import check_match, write_predictions


def make_data(data_hash: str = "a" * 64):
    return SimpleNamespace(emotions=("happy", "sad"), labels=np.array([0, 1, 1, 0]), data_hash=data_hash)


def test_predictions_keep_rows_labels_and_logits(tmp_path):
    rows = {"val": np.array([3]), "test": np.array([1, 0])}
    logits = {"val": np.float32([[1, 2]]), "test": np.float32([[3, 4], [5, 6]])}
    others = {split: values + 10 for split, values in logits.items()}
    write_predictions(tmp_path / "p.parquet", make_data(), rows, {"one": logits, "other": others})
    both = pd.read_parquet(tmp_path / "p.parquet")
    assert both.query("model == 'other'")["logit_happy"].tolist() == [11, 13, 15]
    table = both.query("model == 'one'")
    assert table["row"].tolist() == [3, 1, 0]
    assert table["split"].tolist() == ["val", "test", "test"]
    assert table["label"].tolist() == [0, 1, 0]
    assert table["logit_sad"].tolist() == [2, 4, 6]
    assert table["logit_happy"].dtype == np.float32


def test_a_checkpoint_of_other_data_is_refused():
    checkpoint = Checkpoint(nn.Identity(), {"data_hash": "a" * 64})
    check_match(checkpoint, make_data())
    with pytest.raises(ModelError, match="trained on data hash aaaaaaaaaaaa, found bbbbbbbbbbbb"):
        check_match(checkpoint, make_data("b" * 64))


def test_recipe_table_shows_what_the_run_did():
    params = load_params("demo").model_dump(mode="json", include={"training", "augmentation"})
    params["training"] |= {"loss": "cross_entropy", "ema_decay": 0.0, "epochs": 7}
    start = {"source": "package", "name": "weights.pth"}
    table = compare_recipe({"params": params, "initial_weights": start, "device": "cpu"})
    run = table.set_index("setting")["this run"]
    assert run["loss"] == "cross-entropy"
    assert run["weight average"] == "none"
    assert run["epochs"] == "at most 7"
    assert run["initial weights"] == "package: weights.pth"


def test_the_papers_epochs_are_those_it_prints():
    # The three rows of its table (claim N1).
    assert EPOCHS.set_index("epoch").loc[5].tolist() == [0.18, 0.22, 0.89]
    assert EPOCHS["val_accuracy"].tolist() == [0.68, 0.81, 0.89]
