import json

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper

from fer_lib.deployment.latency import RUNS_OF_ONE, add_times, measure_times, run_bench
from fer_lib.deployment.memory import Network, measure_memory
from fer_lib.errors import FerError, ModelError
from fer_lib.inference.recognizer import INPUT, OUTPUT
from fer_lib.inference.registry import DEFAULT_MODEL, describe_variant, find_checkpoint, list_variants
from fer_lib.intervals import Interval
from fer_lib.metrics_file import Metrics
from fer_lib.models.checkpoints import read_config


@pytest.fixture
def write_network(tmp_path):
    """Return a function that writes a network: the mean over pixels, with `n` bytes of weights behind it."""

    def write(name, n_bytes=0):
        image = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", 3, 8, 8])
        axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
        nodes = [helper.make_node("ReduceMean", [INPUT, "axes"], ["mean"], keepdims=0)]
        weights = np.ones((3, max(3, n_bytes // 12)), np.float32)
        tensors = [axes, onnx.numpy_helper.from_array(weights, "w")]
        nodes.append(helper.make_node("MatMul", ["mean", "w"], [OUTPUT]))
        logits = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", weights.shape[1]])
        graph = helper.make_graph(nodes, name, [image], [logits], tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
        model.ir_version = 10
        onnx.save(model, tmp_path / f"{name}.onnx")
        return Network(tmp_path / f"{name}.onnx", 8)

    return write


def test_every_network_is_timed_in_every_round(write_network):
    networks = {name: write_network(name) for name in ("a", "b")}
    times = measure_times(networks, threads=(1,), rounds=3)
    assert list(times.columns) == ["a", "b", "threads", "batch"]
    assert times.groupby(["threads", "batch"]).size().to_dict() == {(1, 1): 3 * RUNS_OF_ONE, (1, 32): 3}
    assert (times[["a", "b"]] > 0).all(axis=None)


def test_summary_of_times_known_by_hand():
    times = pd.DataFrame(
        {"threads": 1, "batch": 1, "slow": [0.002, 0.004, 0.010], "fast": [0.001, 0.002, 0.002]}
    )
    found = Metrics("latency")
    add_times(found, times, {"baseline": {"slow": "slow", "fast": "slow"}})
    assert found["slow.threads_1.batch_1.time.ms"] == pytest.approx(4)
    assert found["slow.threads_1.batch_1.time.faces_per_second"] == pytest.approx(250)
    assert found["fast.threads_1.batch_1.time.ms_p95"] == pytest.approx(2)
    # Round by round 2, 2 and 5 times as fast.
    assert found.interval("fast.threads_1.batch_1.time.speedup.baseline") == pytest.approx(Interval(2, 2, 5))
    assert found["slow.threads_1.batch_1.time.speedup.baseline"] == 1


def test_memory_grows_with_the_weights(write_network):
    small, large = (measure_memory(write_network(f"n{n}", n)) for n in (0, 40_000_000))
    assert large - small > 30  # of the 38 MiB of weights


def test_what_is_no_network_is_told_in_one_line(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(FerError, match="its memory could not be measured"):
        measure_memory(Network(tmp_path / "broken.onnx", 8))


def test_table_has_every_variant_of_the_release_with_its_accuracy():
    table = run_bench(DEFAULT_MODEL, rounds=2)
    config = read_config(find_checkpoint(DEFAULT_MODEL))
    singles = {name: entry for name, entry in list_variants(config).items() if "file" in entry}
    assert len(singles) == 3
    for name, variant in singles.items():
        assert name in table
        assert f"{variant['metrics']['test.accuracy']:.1%}" in table
    assert "1 x 32" in table


def test_model_that_was_not_exported_is_told(tmp_path):
    config = {"architecture": "a", "emotions": ["happy"]}
    config |= {"preprocessing": {"image_size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="expected an exported network, found none"):
        run_bench(tmp_path)


def test_variant_says_what_it_costs():
    variant = {"architecture": "a", "quantized": True, "bytes": 3.8e6, "milliseconds": 0.66}
    metrics = {"test.accuracy": 0.6236, "test.majority.accuracy": 0.81}
    assert describe_variant(variant | {"metrics": metrics}) == (
        "a in int8, 3.8 MB, 0.7 ms a face, accuracy 81.0% by annotators, 62.4% by labels"
    )
    assert describe_variant({"architecture": "a", "metrics": {"test.accuracy": 0.5}}) == (
        "a, accuracy 50.0% by labels"
    )
