import json
import re

import numpy as np
import onnxruntime
import pytest

from fer_lib.cli import main as cli
from fer_lib.inference.recognizer import Recognizer
from fer_lib.models.preprocessing import Preprocessing, preprocess


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton")
    assert cli.main(["triton", str(folder)]) == 0
    return folder


def test_every_network_of_the_release_is_a_model_with_the_layout_that_triton_asks_for(repository):
    names = sorted(
        path.relative_to(repository).as_posix() for path in repository.rglob("*") if path.is_file()
    )
    models = ("photographs_balanced", "photographs_float", "photographs_tiny")
    assert names == [f"{m}/{file}" for m in models for file in ("1/model.onnx", "config.pbtxt", "labels.txt")]


@pytest.mark.parametrize("variant", ["balanced", "float", "tiny"])
def test_a_client_that_reads_the_config_gets_the_probabilities_of_the_library(repository, variant):
    folder = repository / f"photographs_{variant}"
    config = (folder / "config.pbtxt").read_text()
    text = re.search(r'"fer_preprocessing" value: { string_value: "(.*)" } }', config)[1].replace('\\"', '"')
    preprocessing = Preprocessing.from_dict(json.loads(text))
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx")
    size = preprocessing.image_size
    assert f'input [ {{ name: "image", data_type: TYPE_FP32, dims: [ 3, {size}, {size} ] }} ]' in config
    assert [each.shape[1:] for each in session.get_inputs()] == [[3, size, size]]
    crops = list(np.random.default_rng(0).integers(0, 256, (3, 48, 48, 1), np.uint8))
    (logits,) = session.run(["logits"], {"image": preprocess(crops, preprocessing)})
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    recognizer = Recognizer(variant=variant)
    assert shares == pytest.approx(recognizer.compute_probabilities(crops), abs=1e-3)
    assert (folder / "labels.txt").read_text().split() == list(recognizer.emotions)
    assert f'"fer_abstain_below" value: {{ string_value: "{recognizer.abstain_below}" }}' in config


def test_a_model_that_was_not_released_is_refused(capsys, tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "architecture": "resnet18",
                "emotions": ["happy", "sad"],
                "preprocessing": {"image_size": 64, "mean": [0.5] * 3, "std": [0.5] * 3},
            }
        )
    )
    assert cli.main(["triton", str(tmp_path / "out"), "--model", str(tmp_path)]) == 1
    assert capsys.readouterr().err.endswith("expected a release, found a checkpoint; run `fer release`\n")
