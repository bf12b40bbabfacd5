"""The stage `compress`, on a packed set of a few faces and a network that was not trained."""

import numpy as np
import onnx
import pandas as pd
import pytest
import torch

from fer_lib.data.packed import load_packed
from fer_lib.deployment import compression, forms
from fer_lib.deployment.compression import FLOAT, INT8, INT8_ALL
from fer_lib.errors import FerError
from fer_lib.metrics_file import read_metrics
from fer_lib.models.build import create_model, save_checkpoint
from fer_lib.params import load_params
from fer_lib.paths import get_output_dirs

NETWORKS = ("student", "small")


@pytest.fixture(scope="module")
def compressed(tiny_project):
    """Two untrained networks, compressed in the tiny project: its packed data, folders and settings."""
    data = load_packed("demo", tiny_project / "data" / "packed" / "demo")
    params = load_params("demo", path=tiny_project / "params.yaml")
    settings = params.compression.model_copy(update={"networks": NETWORKS})
    dirs = get_output_dirs("demo", tiny_project / "compressed")
    for seed, name in enumerate(NETWORKS):
        torch.manual_seed(seed)
        model = create_model("test_resnet", 7)
        torch.nn.init.normal_(model.get_classifier().weight)
        preprocessing = {"image_size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
        training = {"epochs": 1, "weights": "none", "teacher": None}
        config = {"architecture": "test_resnet", "emotions": data.emotions, "preprocessing": preprocessing}
        config |= {"data_hash": data.data_hash, "git_commit": "c", "device": "cpu"}
        save_checkpoint(dirs.models / name, model, {**config, "params": {"training": training}})
    with pytest.MonkeyPatch.context() as patch:
        changed = params.model_copy(update={"compression": settings})
        patch.setattr(compression, "load_params", lambda _: changed)
        patch.setattr(compression, "load_packed", lambda _: data)
        for name in NETWORKS:
            compression.compress(name, "demo", tiny_project / "compressed")
    return data, dirs, settings


def test_every_form_is_written_and_says_something_of_every_face(compressed):
    data, dirs, _ = compressed
    said = compression.read_said(dirs, "student", data)
    assert set(said) == {FLOAT, INT8, INT8_ALL, "sparse_70"}
    for form in said:
        assert said[form]["test"].shape == (len(data.get_rows("test")), 7)
        assert (compression.get_forms_dir(dirs, "student") / f"{form}.onnx").is_file()
    assert FLOAT in compression.read_said(dirs, "small", data)
    assert "sparse_70" not in compression.read_said(dirs, "small", data)  # of the parent alone


def test_sparse_form_has_that_share_of_zeros(compressed):
    _, dirs, _ = compressed
    graph = onnx.load(compression.get_forms_dir(dirs, "student") / "sparse_70.onnx").graph
    weights = [onnx.numpy_helper.to_array(t) for t in graph.initializer if len(t.dims) == 4]
    zeros = sum(int((w == 0).sum()) for w in weights) / sum(w.size for w in weights)
    assert zeros == pytest.approx(0.7, abs=0.01)


def test_ranges_come_from_training_faces_alone(compressed):
    data, _, settings = compressed
    preprocessing = compression.Preprocessing(32, (0.5,) * 3, (0.5,) * 3)
    chosen = compression.choose_calibration(data, preprocessing, settings)
    train = compression.load_images(data, data.get_rows("train"), preprocessing)
    assert len(chosen) == settings.calibration_faces
    assert all((train == image).all(axis=(1, 2, 3)).any() for image in chosen)


def test_logits_are_divided_by_the_temperature_that_fits_validation(compressed):
    data, dirs, _ = compressed
    logits = compression.read_said(dirs, "student", data)[FLOAT]["val"]
    temperature = read_metrics(dirs, "compression/student")["temperature"]
    labels = data.labels[data.get_rows("val")]
    assert compression.fit_temperature(temperature * logits, labels) == pytest.approx(temperature, rel=0.01)
    assert temperature != pytest.approx(1)


def test_gains_are_against_the_parent_and_against_the_twin(compressed):
    data, dirs, settings = compressed
    metrics = forms.score_forms(dirs, settings, data)
    labels = data.labels[data.get_rows("test")]
    said = {name: compression.read_said(dirs, name, data) for name in NETWORKS}
    right = {
        f"{name}.{form}": np.mean(logits["test"].argmax(axis=1) == labels)
        for name in NETWORKS
        for form, logits in said[name].items()
    }
    for name, share in right.items():
        assert metrics[f"{name}.test.accuracy"] == pytest.approx(share)
        twin = f"{name.split('.')[0]}.{FLOAT}"
        for title, other in (("parent", f"student.{FLOAT}"), ("twin", twin)):
            if name == other:
                assert f"{name}.{title}.gain" not in metrics  # nothing gains on itself
            else:
                assert metrics[f"{name}.{title}.gain"] == pytest.approx(share - right[other])


def test_forms_that_were_not_timed_as_they_are_now_are_refused(compressed, monkeypatch):
    _, dirs, settings = compressed
    timed = {"student.float32.sha256": "of an older file"}
    real = read_metrics
    monkeypatch.setattr(forms, "read_metrics", lambda d, n: timed if n == "latency" else real(d, n))
    with pytest.raises(FerError, match=r"student\.float32 was not timed as it is now"):
        forms.read_forms(dirs, settings)


def test_predictions_of_other_faces_are_refused(compressed, tmp_path):
    data, dirs, _ = compressed
    path = compression.get_said_path(dirs, "small")
    before = path.read_bytes()
    table = pd.read_parquet(path)
    table["row"] += 1
    table.to_parquet(path, index=False)
    try:
        with pytest.raises(FerError, match="made of other faces than those of demo"):
            compression.read_said(dirs, "small", data)
    finally:
        path.write_bytes(before)


def test_network_that_was_not_compressed_is_told(compressed):
    data, dirs, _ = compressed
    with pytest.raises(FerError, match="python -m fer_lib compress lite"):
        compression.read_said(dirs, "lite", data)
