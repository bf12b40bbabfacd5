import hashlib
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from torch import nn

from fer_lib.data.packed import PackedDataset, load_packed
from fer_lib.errors import DataError, ModelError
from fer_lib.evaluation import predictions
from fer_lib.evaluation.paper import EPOCHS, compare_recipe
from fer_lib.evaluation.perturbations import CONDITIONS
from fer_lib.evaluation.predictions import (
    get_predictions_path,
    predict_splits,
    read_all_predictions,
    read_predictions,
    read_table,
    write_table,
)
from fer_lib.metrics_file import COLUMNS
from fer_lib.models.build import Checkpoint, create_model, load_checkpoint, save_checkpoint
from fer_lib.models.preprocessing import Preprocessing
from fer_lib.params import load_params
from fer_lib.paths import get_output_dirs
from fer_lib.training.predict import ALL, Predictor
from fer_lib.training.recipes import check_match, get_metrics_name
from fer_lib.training.voting import compute_softmax

PREPROCESSING = Preprocessing(32, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def written(enter_project, tiny_project, tmp_path):
    """Return the data, the network and the output folders after it has named both splits."""
    enter_project(predictions, tiny_project)
    data = load_packed("demo", tiny_project / "data" / "packed" / "demo")
    dirs = get_output_dirs("demo", tmp_path)
    config = {
        "architecture": "test_efficientnet",
        "emotions": data.emotions,
        "preprocessing": PREPROCESSING.to_dict(),
        "data_hash": data.data_hash,
        "git_commit": "c" * 40,
        "params": {"training": {"epochs": 4}},
    }
    model = create_model("test_efficientnet", len(data.emotions))
    nn.init.normal_(model.get_classifier().weight)  # or it would say next to the same of every face
    save_checkpoint(dirs.models / "b0", model, config)
    assert predict_splits("b0", "demo", tmp_path) == get_predictions_path(dirs, "b0")
    return data, load_checkpoint(dirs.models / "b0").model, dirs


def test_predictions_are_what_the_network_says(written):
    data, model, dirs = written
    found = read_predictions(get_predictions_path(dirs, "b0"), data)
    predictor = Predictor(model, PREPROCESSING, 16)
    rows = {split: data.get_rows(split) for split in ("val", "test")}
    for split, logits in found.logits.items():
        assert np.allclose(logits, predictor.predict_logits(data.faces, rows[split]), atol=1e-4)
    assert np.allclose(found.views, predictor.predict(data.faces, rows["test"], ALL), atol=1e-5)
    assert not np.allclose(found.views, compute_softmax(found.logits["test"]), atol=1e-3)
    assert list(found.conditions) == ["clean", *CONDITIONS]
    assert found.conditions["clean"].tolist() == found.logits["val"].argmax(axis=1).tolist()
    darker = np.stack([CONDITIONS["darker"](face) for face in data.faces[rows["val"]]])
    expected = predictor.predict_logits(darker).argmax(axis=1)
    assert found.conditions["darker"].tolist() == expected.tolist()


def test_the_file_tells_a_reader_which_face_and_which_label(written):
    data, _, dirs = written
    table = pd.read_parquet(get_predictions_path(dirs, "b0"))
    assert table["split"].unique().tolist() == ["val", "test"]
    assert table["row"].tolist() == [*data.get_rows("val"), *data.get_rows("test")]
    assert table["label"].tolist() == data.labels[table["row"]].tolist()
    is_test = table["split"] == "test"
    assert table["views_happy"].notna().equals(is_test)
    assert table["under_darker"].notna().equals(~is_test)


def test_the_file_names_the_network(written):
    data, _, dirs = written
    source = read_predictions(get_predictions_path(dirs, "b0"), data).source
    weights = (dirs.models / "b0" / "model.safetensors").read_bytes()
    assert source == {
        "data_hash": data.data_hash,
        "trained_at_commit": "c" * 40,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "training": {"epochs": 4},
    }


def test_a_table_keeps_every_value_and_is_small(written, tmp_path):
    data, path = written[0], tmp_path / "table.parquet"
    rng = np.random.default_rng(0)
    logits, rows = rng.normal(size=3000).astype(np.float32), np.arange(3000) * 2
    table = pd.DataFrame(
        {
            "row": rows,
            "split": np.where(rows < 2000, "val", "test"),
            "label": (rows % 7).astype(np.uint8),
            "float32/happy": logits,
            "int8/happy": np.round(logits, 1),
            "views_happy": np.where(rows < 2000, np.nan, logits),
            "under_darker": pd.array(np.where(rows < 2000, rows % 7, None), "UInt8"),
            "found": logits > 0,
        }
    )
    write_table(path, table, data, {"training": {"epochs": 4}})
    found = read_table(path, data, "predict-networks")
    assert found.attrs == {"training": {"epochs": 4}, "data_hash": data.data_hash}
    pd.testing.assert_frame_equal(found, table, check_exact=True)
    plain = table.to_parquet(index=False, compression="zstd")
    assert path.stat().st_size < 0.8 * len(plain)


def test_predictions_that_do_not_fit_are_refused(written):
    data, _, dirs = written
    path = get_predictions_path(dirs, "b0")
    repacked = PackedDataset(data.faces, data.index, {**data.meta, "data_hash": "e" * 64})
    with pytest.raises(
        DataError, match=r"b0\.parquet: expected predictions on data hash e{12}, found .*; run"
    ):
        read_predictions(path, repacked)
    with pytest.raises(DataError, match=r"lite0\.parquet: expected what `predict-networks` writes, found no"):
        read_predictions(get_predictions_path(dirs, "lite0"), data)
    table = read_table(path, data, "predict-splits b0")
    write_table(path, table.drop(columns="under_darker"), data, table.attrs)
    with pytest.raises(
        DataError, match=r"b0\.parquet: expected a column 'under_darker', found none; .*`make"
    ):
        read_predictions(path, data)
    path.write_bytes(b"no table")
    with pytest.raises(DataError, match=r"b0\.parquet: expected a parquet file, found none that can be read"):
        read_predictions(path, data)


def write_commit(dirs, stage, commit):
    """Write the metrics of a training at `commit`, without a number."""
    for path in (dirs.get_table(stage), dirs.get_provenance(stage)):
        path.parent.mkdir(parents=True, exist_ok=True)
    dirs.get_table(stage).write_text(",".join(COLUMNS))
    dirs.get_provenance(stage).write_text(json.dumps({"facts": {"trained_at_commit": commit}}))


def test_all_predictions_are_in_the_order_of_the_parameters_and_of_the_trainings_that_were_measured(
    written, tiny_project
):
    data, _, dirs = written
    params = load_params("demo", path=tiny_project / "params.yaml")
    with pytest.raises(DataError, match=r"baseline\.parquet: .* run `python -m fer_lib predict-networks"):
        read_all_predictions(params, dirs, data)
    for name in ("student", "b0", "baseline"):
        if name != "b0":
            shutil.copy(get_predictions_path(dirs, "b0"), get_predictions_path(dirs, name))
        write_commit(dirs, get_metrics_name(name), "c" * 40)
    assert list(read_all_predictions(params, dirs, data)) == ["baseline", "b0", "student"]
    write_commit(dirs, "recipes/b0", "d" * 40)
    with pytest.raises(ModelError, match=r"b0\.parquet: made by a training at c{40}, but the metrics are of"):
        read_all_predictions(params, dirs, data)


def test_a_checkpoint_of_other_data_is_refused(written):
    data, *_ = written
    check_match(Checkpoint(nn.Identity(), {"data_hash": data.data_hash}), data)
    with pytest.raises(ModelError, match=f"trained on data hash bbbbbbbbbbbb, found {data.data_hash[:12]}"):
        check_match(Checkpoint(nn.Identity(), {"data_hash": "b" * 64}), data)


@pytest.mark.parametrize(
    ("loss", "shown"),
    [
        ("cross_entropy", "cross-entropy"),
        ("weighted_cross_entropy", "weighted cross-entropy"),
        ("focal", "focal, gamma 2"),
    ],
)
def test_recipe_table_shows_what_the_run_did(loss, shown):
    params = load_params("demo").model_dump(mode="json", include={"training", "augmentation"})
    params["training"] |= {"loss": loss, "focal_gamma": 2.0, "ema_decay": 0.0, "epochs": 7}
    start = {"source": "package", "name": "weights.pth"}
    table = compare_recipe({"params": params, "initial_weights": start, "device": "cpu"})
    run = table.set_index("setting")["this run"]
    assert run["loss"] == shown
    assert run["class imbalance"].endswith(f"sampler, {shown}")
    assert run["weight average"] == "none"
    assert run["epochs"] == "at most 7"
    assert run["initial weights"] == "package: weights.pth"


def test_the_papers_epochs_are_those_it_prints():
    # The three rows of its table (claim N1).
    assert EPOCHS.set_index("epoch").loc[5].tolist() == [0.18, 0.22, 0.89]
    assert EPOCHS["val_accuracy"].tolist() == [0.68, 0.81, 0.89]
