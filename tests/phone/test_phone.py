"""Where the extra `phone` is installed: what a telephone's runtime says of faces, beside ONNX Runtime."""

import json
import shutil

import coremltools
import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from executorch.runtime import Runtime

from demo_faces.clips import draw_scene
from fer_lib.cli import main as cli
from fer_lib.deployment import phone
from fer_lib.errors import ModelError
from fer_lib.inference.recognizer import Recognizer, run_session
from fer_lib.inference.registry import find_checkpoint
from fer_lib.models.preprocessing import Preprocessing, preprocess
from fer_lib.onnx_session import open_session

VARIANTS = ("float", "tiny")


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Return a release of the two networks at the ends: converting the third takes as long as both."""
    source = find_checkpoint("photographs")
    folder = tmp_path_factory.mktemp("release") / "two"
    folder.mkdir()
    config = json.loads((source / "config.json").read_text())
    config["variants"] = {name: config["variants"][name] for name in VARIANTS}
    (folder / "config.json").write_text(json.dumps(config))
    for variant in config["variants"].values():
        shutil.copy(source / variant["file"], folder)
    return folder


@pytest.fixture(scope="module")
def exported(release, tmp_path_factory):
    folder = tmp_path_factory.mktemp("phone")
    assert cli.main(["phone", "--model", str(release), str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def crops():
    return [face.crop for face in Recognizer()(draw_scene(8, 1280, 720)[0])]


def run_litert(path, images):
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert source["shape"].tolist() == [1, *images.shape[1:]]
    logits = []
    for image in images:
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        logits.append(interpreter.get_tensor(target["index"])[0])
    return np.array(logits)


def run_executorch(path, images):
    method = Runtime.get().load_program(path).load_method("forward")
    return np.array([method.execute([torch.tensor(image[None])])[0][0].numpy() for image in images])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("suffix", "run"), [(".tflite", run_litert), (".pte", run_executorch)])
def test_a_telephones_runtime_says_of_drawn_faces_what_onnx_runtime_says(
    release, exported, crops, variant, suffix, run
):
    config = json.loads((release / "config.json").read_text())["variants"][variant]
    images = np.ascontiguousarray(preprocess(crops, Preprocessing.from_dict(config["preprocessing"])))
    expected = run_session(open_session(release / config["file"]), images, len(images))
    found = run(exported / f"two_{variant}{suffix}", images)
    # Rounding of float32 (1e-5 here); an int8 network also rounds its activations in ONNX Runtime (0.2 here).
    assert np.abs(found - expected).max() < (0.5 if config["quantized"] else 1e-4)
    assert (found.argmax(1) == expected.argmax(1)).all()
    assert len(set(expected.argmax(1))) > 1  # or a network that always answers the same would pass


@pytest.mark.parametrize(("variant", "size"), [("float", 104), ("tiny", 64)])
def test_core_ml_takes_and_returns_what_onnx_does(exported, variant, size):
    package = coremltools.models.MLModel(str(exported / f"two_{variant}.mlpackage"), skip_model_load=True)
    (source,), (target,) = package.get_spec().description.input, package.get_spec().description.output
    assert (source.name, list(source.type.multiArrayType.shape)) == ("image", [1, 3, size, size])
    assert target.name == "logits"


def test_what_was_checked_is_told_for_each_file_and_nothing_else_is_left(exported, release, monkeypatch):
    monkeypatch.setattr(phone, "FORMATS", {".pte": phone._export_executorch, ".mlpackage": write_nothing})
    lines = phone.export_phone(str(release), exported).splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["two_float.pte", "two_float.mlpackage"]
    assert "PyTorch" in lines[0]
    assert lines[1].endswith("converted and not run: Core ML runs on Apple's systems alone")
    assert {path.name for path in exported.iterdir()} == {
        f"two_{variant}{suffix}" for variant in VARIANTS for suffix in (".tflite", ".pte", ".mlpackage")
    }


def write_nothing(network, image, path):
    path.mkdir()


def test_an_export_that_differs_from_pytorch_is_not_written(release, tmp_path, monkeypatch):
    def export(network, image, path):
        path.write_bytes(b"")
        return lambda image: network(image).detach() + 2e-4  # twice what is allowed

    monkeypatch.setattr(phone, "FORMATS", {".pte": export})
    with pytest.raises(ModelError, match=r"two_float\.pte: logits differ by 0\.0002 from PyTorch's"):
        phone.export_phone(str(release), tmp_path)
    assert not list(tmp_path.iterdir())
