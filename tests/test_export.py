import numpy as np
import onnx
import pytest
import torch

from fer_lib.deployment.export import PLAIN_OPERATIONS, Quantizer, export_onnx
from fer_lib.inference.recognizer import run_session
from fer_lib.models.build import Checkpoint, create_model
from fer_lib.onnx_session import open_session

SIZE = 32


@pytest.fixture(scope="module")
def quantizer(tmp_path_factory):
    """A network of some depth, whose batch norms and classifier are not those of the start."""
    torch.manual_seed(0)
    model = create_model("test_efficientnet", 7)
    torch.nn.init.normal_(model.get_classifier().weight)
    preprocessing = {"image_size": SIZE, "mean": [0.5] * 3, "std": [0.5] * 3}
    images = np.random.default_rng(0).normal(size=(8, 3, SIZE, SIZE)).astype(np.float32)
    with torch.no_grad():
        model.train()(torch.from_numpy(images))
    path = tmp_path_factory.mktemp("networks") / "float32.onnx"
    export_onnx(Checkpoint(model.eval(), {"preprocessing": preprocessing}), path, half=False)
    return Quantizer.prepare(path, images, percentile=100.0)


def predict(path, images):
    return run_session(open_session(path), images, 3)  # batches that do not divide the images


def count_operations(path, name):
    return sum(node.op_type == name for node in onnx.load(path).graph.node)


def test_folding_changes_no_logit(quantizer):
    original = quantizer.source.with_name("float32.onnx")
    assert np.allclose(
        predict(original, quantizer.images), predict(quantizer.source, quantizer.images), atol=1e-4
    )


def test_layers_are_listed_in_order_with_their_kind(quantizer):
    kinds = list(quantizer.list_layers().values())
    assert kinds[0] == "stem"
    assert kinds[-1] == "classifier"
    assert {"pointwise", "conv"} <= set(kinds)


def test_int8_predicts_nearly_the_same_in_a_smaller_file(quantizer, tmp_path):
    quantizer.quantize(tmp_path / "int8.onnx", operations=PLAIN_OPERATIONS)
    found, expected = (predict(p, quantizer.images) for p in (tmp_path / "int8.onnx", quantizer.source))
    assert (
        0 < np.abs(found - expected).max() < 0.5 * expected.std()
    )  # random weights: far from a real network
    assert (tmp_path / "int8.onnx").stat().st_size < 0.5 * quantizer.source.stat().st_size


def test_excluded_layers_stay_float(quantizer, tmp_path):
    layers = list(quantizer.list_layers())
    quantizer.quantize(tmp_path / "all.onnx", operations=PLAIN_OPERATIONS)
    quantizer.quantize(tmp_path / "none.onnx", excluded=layers, operations=("Conv", "Gemm"))
    assert count_operations(tmp_path / "all.onnx", "QuantizeLinear") > 0
    assert np.allclose(
        predict(tmp_path / "none.onnx", quantizer.images),
        predict(quantizer.source, quantizer.images),
        atol=1e-4,
    )


def test_gates_stay_float_unless_everything_is_asked_for(quantizer, tmp_path):
    quantizer.quantize(tmp_path / "plain.onnx", operations=PLAIN_OPERATIONS)
    quantizer.quantize(tmp_path / "all.onnx")
    plain, everything = (
        count_operations(tmp_path / name, "QuantizeLinear") for name in ("plain.onnx", "all.onnx")
    )
    assert plain < everything


def test_sensitivity_is_of_each_layer_alone(quantizer, tmp_path):
    sensitivity = quantizer.measure_sensitivity(tmp_path)
    assert list(sensitivity.index) == list(quantizer.list_layers())
    assert (sensitivity["error"] > 0).all()
    quantizer.quantize(tmp_path / "all.onnx", operations=PLAIN_OPERATIONS)
    expected = predict(quantizer.source, quantizer.images)
    together = np.sqrt(np.mean((predict(tmp_path / "all.onnx", quantizer.images) - expected) ** 2))
    assert sensitivity["error"].median() < together / expected.std()
