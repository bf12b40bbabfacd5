"""The stage `compress`, on a packed set of a few faces and a network that was not trained."""

import numpy as np
import onnx
import pytest
import torch

from fer_lib.data.packed import load_packed
from fer_lib.deployment import compression, variants
from fer_lib.deployment.compression import FLOAT, INT8, INT8_ALL
from fer_lib.errors import DataError, FerError
from fer_lib.evaluation.predictions import write_table
from fer_lib.metrics_file import Metrics, read_metrics
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
        training = {"epochs": 1, "weights": "none", "teachers": []}
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


def test_every_variant_is_written_and_predicts_every_face(compressed):
    data, dirs, _ = compressed
    logits = compression.read_logits(dirs, "student", data)
    assert set(logits) == {FLOAT, INT8, INT8_ALL, "sparse_70"}
    for variant in logits:
        assert logits[variant]["test"].shape == (len(data.get_rows("test")), 7)
        assert (compression.get_variants_dir(dirs, "student") / f"{variant}.onnx").is_file()
    assert FLOAT in compression.read_logits(dirs, "small", data)
    assert "sparse_70" not in compression.read_logits(dirs, "small", data)  # of the baseline alone


def test_sparse_variant_has_that_share_of_zeros(compressed):
    _, dirs, _ = compressed
    graph = onnx.load(compression.get_variants_dir(dirs, "student") / "sparse_70.onnx").graph
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
    logits = compression.read_logits(dirs, "student", data)[FLOAT]["val"]
    temperature = read_metrics(dirs, "compression/student")["temperature"]
    labels = data.labels[data.get_rows("val")]
    assert compression.fit_temperature(temperature * logits, labels) == pytest.approx(temperature, rel=0.01)
    assert temperature != pytest.approx(1)


def test_gains_are_against_the_baseline_and_against_the_float_reference(compressed):
    data, dirs, settings = compressed
    metrics = variants.score_variants(dirs, settings, data)
    labels = data.labels[data.get_rows("test")]
    accuracies = {
        f"{name}.{variant}": np.mean(logits["test"].argmax(axis=1) == labels)
        for name in NETWORKS
        for variant, logits in compression.read_logits(dirs, name, data).items()
    }
    for name, accuracy in accuracies.items():
        assert metrics[f"{name}.test.accuracy"] == pytest.approx(accuracy)
        references = {"baseline": f"student.{FLOAT}", "float_reference": f"{name.split('.')[0]}.{FLOAT}"}
        for title, other in references.items():
            if name == other:
                assert f"{name}.{title}.gain" not in metrics  # nothing gains on itself
            else:
                assert metrics[f"{name}.{title}.gain"] == pytest.approx(accuracy - accuracies[other])


def test_layers_are_tabulated_with_their_kind_and_error(compressed):
    _, dirs, settings = compressed
    layers, about = variants.tabulate_sensitivity(dirs, "small"), read_metrics(dirs, "compression/small")
    assert layers["kind"].iloc[[0, -1]].tolist() == ["stem", "classifier"]
    assert (layers["error"] > settings.max_layer_error).sum() == about["n_float_layers"]


def test_variants_that_were_not_timed_as_they_are_now_are_refused(compressed):
    _, dirs, settings = compressed
    latency = Metrics("latency", {"student.float32.sha256": "of an older file"})
    with pytest.raises(FerError, match=r"student\.float32 was not timed as it is now"):
        variants.read_variants(dirs, settings, latency)


def test_predictions_of_other_faces_are_refused(compressed):
    data, dirs, _ = compressed
    path = compression.get_logits_path(dirs, "small")
    before = path.read_bytes()
    table = compression.read_table(path, data, "compress small")
    other = compression.PackedDataset(data.faces, data.index, {**data.meta, "data_hash": "other"})
    write_table(path, table, other)
    try:
        with pytest.raises(DataError, match="expected predictions on data hash"):
            compression.read_logits(dirs, "small", data)
    finally:
        path.write_bytes(before)


def test_network_that_was_not_compressed_is_told(compressed):
    data, dirs, _ = compressed
    with pytest.raises(DataError, match="python -m fer_lib compress --dataset"):
        compression.read_logits(dirs, "lite", data)
