import json
import multiprocessing
import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import onnx
import pytest
from conftest import REPO, build_command_environment
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from demo_faces.clips import draw_scene
from fer_lib.errors import MediaError, ModelError
from fer_lib.inference.recognizer import Recognizer
from fer_lib.labels import EMOTIONS_7, GROUP_OF
from fer_lib.models.build import create_model, save_checkpoint
from fer_lib.training.predict import Predictor

RELEASE = REPO / "models" / "release" / "photographs"
PARITY = 1e-3
"""Largest difference in probabilities that the project allows between its ways to run one network."""


@pytest.fixture(scope="module")
def recognizer():
    before = cv2.getNumThreads()
    yield Recognizer(RELEASE, threads=1, variant="float")
    cv2.setNumThreads(before)


@pytest.fixture(scope="module")
def crops(recognizer):
    """Return faces in the model's framing, uint8 (48, 48): eight drawn ones, and noise."""
    faces = [face.crop for seed in (1, 2) for face in recognizer(draw_scene(4, 480, 360, seed=seed)[0])]
    assert len(faces) == 8
    return [*faces, np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)]


@pytest.fixture
def folder(tmp_path):
    """Return a copy of the release that a test may damage."""
    return shutil.copytree(RELEASE, tmp_path / "model")


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def edit_variant(folder, variant, **changes):
    variants = json.loads((folder / "config.json").read_text())["variants"]
    edit_config(folder, variants=variants | {variant: variants[variant] | changes})


def record_inputs(recognizer, monkeypatch):
    """Return a list to which every input of the network, float32 (N, 3, S, S), will be added."""
    seen, ((preprocessing, run),) = [], recognizer._networks
    recorded = [(preprocessing, lambda pixels: seen.append(pixels) or run(pixels))]
    monkeypatch.setattr(recognizer, "_networks", recorded)
    return seen


def tabulate(emotions):
    return np.array([list(emotion.probabilities.values()) for emotion in emotions])


def test_pytorch_onnx_and_the_notebooks_agree(recognizer, crops):
    by_onnx = recognizer.compute_probabilities(crops)
    by_torch = Recognizer(RELEASE, backend="torch", threads=1, variant="float")
    by_torch = by_torch.compute_probabilities(crops)
    checkpoint = recognizer.checkpoint
    predictor = Predictor(checkpoint.model, checkpoint.preprocessing, batch_size=4)
    assert np.abs(by_onnx - by_torch).max() < PARITY
    assert np.abs(by_onnx - predictor.predict(crops)).max() < PARITY
    assert by_onnx.max() > 0.5  # or all of them would say nothing, and agree in that


def test_every_face_of_an_image_is_described(recognizer):
    image, placed = draw_scene(3, 480, 240, seed=1)
    faces = recognizer(image)
    assert len(faces) == len(placed)
    for face in faces:
        assert tuple(face.probabilities) == recognizer.emotions == EMOTIONS_7
        assert sum(face.probabilities.values()) == pytest.approx(1)
        assert face.label == max(face.probabilities, key=face.probabilities.get)
        assert face.confidence == face.probabilities[face.label]
        assert face.group == GROUP_OF[face.label]
        assert face.crop.shape == (48, 48)
        assert face.crop.dtype == np.uint8
    middles = sorted(face.box[0] + face.box[2] / 2 for face in faces)
    expected = sorted(face.box[0] + face.box[2] / 2 for face in placed)
    assert middles == pytest.approx(expected, abs=8)  # of faces 80 pixels wide


def test_dict_is_json_and_complete(recognizer):
    face = recognizer(draw_scene(1, 320, 240)[0])[0]
    values = json.loads(json.dumps(face.to_dict()))
    assert values["box"] == list(face.box)
    assert values["landmarks"] == pytest.approx(face.landmarks, abs=0.05)
    assert values["probabilities"] == pytest.approx(face.probabilities, abs=5e-5)
    assert {key: values[key] for key in ("label", "group", "abstained")} == {
        "label": face.label,
        "group": face.group,
        "abstained": face.abstained,
    }
    assert "crop" not in values


@settings(max_examples=12, deadline=None)
@given(left=st.integers(-80, 160), top=st.integers(-80, 100), scale=st.floats(0.3, 3), seed=st.integers(0, 3))
def test_boxes_lie_inside_the_image(recognizer, left, top, scale, seed):
    matrix = np.array([[scale, 0, left], [0, scale, top]])
    image = draw_scene(2, 200, 140, seed=seed)[0]
    image = cv2.warpAffine(image, matrix, (240, 160), borderMode=cv2.BORDER_REPLICATE)
    for face in recognizer(image):
        assert all(type(value) is int for value in face.box)
        x, y, width, height = face.box
        assert min(x, y) >= 0
        assert min(width, height) > 0
        assert x + width <= 240
        assert y + height <= 160
        assert sum(face.probabilities.values()) == pytest.approx(1)


def test_what_lies_outside_the_image_is_left_out(recognizer):
    image, _ = draw_scene(1, 320, 240)
    inside = recognizer.detector.detect(image)[0]
    outside = replace(inside, box=(-90.0, 10.0, 80.0, 80.0))
    partly = replace(inside, box=(-20.4, 200.0, 80.0, 80.0))
    faces = recognizer.recognize(image, [outside, partly, inside])
    assert [face.box for face in faces[:-1]] == [(0, 200, 60, 40)]
    assert faces[-1].box == pytest.approx(inside.box, abs=1)


def test_image_without_faces(recognizer):
    assert recognizer(np.full((200, 300, 3), 90, np.uint8)) == []
    assert recognizer.recognize(np.zeros((20, 20, 3), np.uint8), []) == []
    assert recognizer.classify([]) == []
    assert recognizer.compute_probabilities([]).shape == (0, 7)


def test_all_faces_share_one_pass(recognizer, monkeypatch):
    seen = record_inputs(recognizer, monkeypatch)
    assert len(recognizer(draw_scene(6, 480, 320, seed=1)[0])) == 6
    side = recognizer.checkpoint.preprocessing.image_size
    assert [pixels.shape for pixels in seen] == [(6, 3, side, side)]


def test_crops_are_classified_as_they_are(recognizer, crops):
    expected = recognizer.compute_probabilities(crops)
    assert (tabulate(recognizer.classify(crops)) == expected).all()
    colour = [np.dstack([crop] * 3) for crop in crops]
    assert (tabulate(recognizer.classify(colour)) == expected).all()


def test_large_crops_are_reduced_to_what_the_network_knows(recognizer, crops):
    large = [cv2.resize(crop, (480, 480), interpolation=cv2.INTER_NEAREST) for crop in crops]
    assert tabulate(recognizer.classify(large)) == pytest.approx(
        tabulate(recognizer.classify(crops)), abs=1e-6
    )


def test_many_faces_need_no_more_memory_than_a_few(recognizer, crops, monkeypatch):
    seen = record_inputs(recognizer, monkeypatch)
    found = recognizer.compute_probabilities([crops[0], *[crops[1]] * 99])
    assert [len(pixels) for pixels in seen] == [16] * 6 + [4]
    assert found[0] == pytest.approx(recognizer.compute_probabilities([crops[0]])[0], abs=1e-5)
    assert found[99] == pytest.approx(found[1], abs=1e-5)


def test_faces_of_one_batch_do_not_touch_each_other(recognizer, crops):
    alone = np.concatenate([recognizer.compute_probabilities([crop]) for crop in crops])
    assert recognizer.compute_probabilities(crops) == pytest.approx(alone, abs=1e-5)


def test_threads_get_what_one_would(recognizer):
    images = [draw_scene(n, 320, 200, seed=n)[0] for n in (1, 2, 3, 4)]
    serial = [[face.to_dict() for face in recognizer(image)] for image in images]
    found = [None] * 8

    def work(number):
        # Each starts elsewhere, so that sizes differ at any moment.
        order = [(number + step) % 4 for step in range(8)]
        found[number] = {at: [face.to_dict() for face in recognizer(images[at])] for at in order}

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [dict(enumerate(serial))] * 8


@pytest.mark.parametrize(
    "settings", [{"variant": "tiny"}, {"variant": "accurate"}, {"variant": "float", "backend": "torch"}]
)
def test_pickled_recognizer_is_its_folder_and_settings(crops, settings, monkeypatch, tmp_path):
    monkeypatch.chdir(REPO)
    original = Recognizer(RELEASE.relative_to(REPO), threads=1, **settings)
    original.abstain_below = 0.9  # changed since it was loaded
    packed = pickle.dumps(original)
    assert len(packed) < 1000  # names and numbers; the smallest network has a megabyte
    monkeypatch.chdir(tmp_path)  # another process may run elsewhere
    copy = pickle.loads(packed)
    assert copy.classify(crops) == original.classify(crops)
    for name in ("variant", "backend", "device", "threads"):
        assert getattr(copy, name) == getattr(original, name)


def test_processes_get_what_one_would(recognizer, crops):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(recognizer.classify, crops).result() == recognizer.classify(crops)


def test_nothing_heavy_is_loaded_to_read_a_face():
    code = """
import sys, numpy as np
from fer_lib.inference.recognizer import Recognizer
Recognizer(sys.argv[1], threads=1).classify([np.zeros((48, 48), np.uint8)])
heavy = {"torch", "torchvision", "timm", "albumentations", "pandas", "sklearn", "matplotlib", "onnx", "scipy"}
heavy |= {"av"}
print(sorted(heavy & sys.modules.keys()))
"""
    command = [sys.executable, "-c", code, str(RELEASE)]
    done = subprocess.run(
        command, env=build_command_environment(REPO), capture_output=True, text=True, check=False
    )
    assert done.stdout == "[]\n", done.stderr


def test_library_gives_the_recognizer_and_imports_little():
    code = """
import sys, fer_lib
ours = {name for name in sys.modules if name.startswith("fer_lib")}
heavy = {"torch", "numpy", "cv2", "onnxruntime", "pandas"} & sys.modules.keys()
print(sorted(ours), sorted(heavy), "Recognizer" in dir(fer_lib))
from fer_lib import Recognizer
print(Recognizer.__module__, "torch" in sys.modules)
try:
    from fer_lib import Recogniser
except ImportError as error:
    print(type(error).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=build_command_environment(REPO),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "['fer_lib'] [] True",
        "fer_lib.inference.recognizer False",
        "ImportError",
    ], done.stderr


def test_nothing_is_left_in_the_home_or_reported(tmp_path):
    # ONNX Runtime's own builds write an identifier there and report to their maker, unless they run in CI.
    environment = build_command_environment(REPO)
    for name in ("CI", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    places = {name: str(tmp_path) for name in ("HOME", "TMPDIR")}
    code = (
        "import sys; from fer_lib.inference.recognizer import Recognizer; Recognizer(sys.argv[1], threads=1)"
    )
    command = [sys.executable, "-c", code, str(RELEASE)]
    subprocess.run(command, env={**environment, **places}, check=True, cwd=tmp_path)
    assert list(tmp_path.rglob("*")) == []


def test_abstaining_follows_the_threshold(recognizer, crops):
    confidences = tabulate(recognizer.classify(crops)).max(axis=1)
    default = [emotion.abstained for emotion in recognizer.classify(crops)]
    assert default == (confidences < recognizer.abstain_below).tolist()
    threshold = float(np.median(confidences))  # that of one crop, which is not under it
    strict = Recognizer(RELEASE, threads=1, abstain_below=threshold, variant="float")
    strict = strict.classify(crops)
    assert [emotion.abstained for emotion in strict] == (confidences < threshold).tolist()
    assert [emotion.label for emotion in strict] == [emotion.label for emotion in recognizer.classify(crops)]


def test_config_without_threshold_or_framing(folder, recognizer):
    config = json.loads((folder / "config.json").read_text())
    del config["framing"]
    for variant in config["variants"].values():
        del variant["abstain_below"]
    (folder / "config.json").write_text(json.dumps(config))
    loaded = Recognizer(folder, threads=1)
    assert loaded.framing == recognizer.framing  # the release's own is FER2013's
    assert not any(face.abstained for face in loaded(draw_scene(2, 320, 200)[0]))


def test_checkpoint_without_onnx_runs_through_pytorch(tmp_path):
    emotions = ["happy", "neutral", "sad"]
    config = {
        "architecture": "test_efficientnet",
        "emotions": emotions,
        "preprocessing": {"image_size": 32, "mean": [0.5] * 3, "std": [0.5] * 3},
    }
    save_checkpoint(tmp_path / "c", create_model("test_efficientnet", 3), config)
    recognizer = Recognizer(tmp_path / "c", threads=1)
    assert recognizer.backend == "torch"
    face = recognizer(draw_scene(1, 320, 240)[0])[0]
    assert list(face.probabilities) == emotions
    with pytest.raises(ModelError, match=r"expected model\.onnx, found none; use the backend `torch`"):
        Recognizer(tmp_path / "c", backend="onnx")


def test_colour_models_get_colour_crops(folder):
    framing = json.loads((folder / "config.json").read_text())["framing"]
    edit_config(folder, framing={**framing, "size": 64, "channels": 3})
    face = Recognizer(folder, threads=1)(draw_scene(1, 320, 240)[0])[0]
    assert face.crop.shape == (64, 64, 3)
    assert np.ptp(face.crop.astype(int).mean(axis=(0, 1))) > 5  # skin is not grey


def check_refusal(words, *arguments, **options):
    with pytest.raises(ModelError) as error:
        Recognizer(*arguments, **options)
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    for word in words:
        assert word in text


def test_unknown_model_backend_and_device():
    check_refusal(["no-such-model", "photographs", "python -m fer_lib models"], "no-such-model")
    check_refusal(["backend", "onnx, torch", "'tensorflow'"], RELEASE, backend="tensorflow")
    check_refusal(["device", "'tpu'", "use `cpu`"], RELEASE, device="tpu")
    check_refusal(["device", "'tpu9'"], RELEASE, backend="torch", device="tpu9", variant="float")


@pytest.mark.parametrize("content", [b"", b"no network", b"\x08\x0a" * 500])
def test_damaged_network(folder, content):
    (folder / "model.balanced.onnx").write_bytes(content)
    check_refusal(["model.balanced.onnx", "export it again"], folder, threads=1)


def test_truncated_network(folder):
    data = (folder / "model.balanced.onnx").read_bytes()
    (folder / "model.balanced.onnx").write_bytes(data[: len(data) // 2])
    check_refusal(["model.balanced.onnx", "export it again"], folder, threads=1)


def test_network_of_another_shape(folder):
    # Takes the image, gives it back: the output has the batch, but no emotions.
    size = json.loads((folder / "config.json").read_text())["preprocessing"]["image_size"]
    shape = ["n", 3, size, size]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "logits")]
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["logits"])], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "model.balanced.onnx")
    check_refusal(["model.balanced.onnx", "expected 7 outputs", "export it again"], folder, threads=1)


def test_config_with_other_classes_than_the_network(folder):
    edit_config(folder, emotions=["happy", "sad"])
    check_refusal(["expected 2 outputs", "found 7"], folder, threads=1)


def test_config_with_another_input_size(folder):
    edit_variant(folder, "balanced", preprocessing={"image_size": 0, "mean": [0.5] * 3, "std": [0.5] * 3})
    check_refusal(["model.balanced.onnx", "export it again"], folder, threads=1)


def test_unreadable_images_are_media_errors(recognizer, tmp_path):
    with pytest.raises(MediaError, match="found no file"):
        recognizer(tmp_path / "missing.jpg")
    with pytest.raises(MediaError, match="a file that is none"):
        recognizer.classify([b"no image"])


def test_pytorch_network_is_there_for_explanations(recognizer):
    checkpoint = recognizer.checkpoint
    assert checkpoint is recognizer.checkpoint
    assert checkpoint.emotions == recognizer.emotions
    assert not checkpoint.model.training


@pytest.mark.parametrize("variant", ["accurate", "balanced", "tiny"])
def test_other_variants_agree_with_the_float_one_on_most_faces(recognizer, crops, variant):
    other = Recognizer(RELEASE, threads=1, variant=variant)
    predicted, expected = (r.compute_probabilities(crops[:8]) for r in (other, recognizer))
    assert predicted.sum(axis=1) == pytest.approx(1)
    assert (
        predicted.argmax(axis=1) == expected.argmax(axis=1)
    ).mean() >= 0.5  # drawn faces; chance is a seventh


@pytest.mark.parametrize("variant", ["float", "balanced", "tiny"])
def test_every_network_can_be_explained(crops, variant):
    recognizer = Recognizer(RELEASE, variant=variant)
    assert recognizer.why_unexplained == ""
    checkpoint = recognizer.checkpoint
    found = Predictor(checkpoint.model, checkpoint.preprocessing).predict(crops)
    expected = recognizer.compute_probabilities(crops)
    # Of int8 the activations are not rounded; on drawn faces that moves a probability by a few points.
    assert np.abs(found - expected).mean() < 0.03
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.8


def test_a_vote_says_why_it_cannot_be_explained():
    recognizer = Recognizer(RELEASE, variant="accurate")
    assert recognizer.why_unexplained.endswith("has no saliency map; choose float, balanced, tiny")
    with pytest.raises(ModelError, match="'accurate': accurate averages several networks"):
        _ = recognizer.checkpoint


def test_without_pytorch_a_model_says_why_it_cannot_be_explained(monkeypatch):
    recognizer = Recognizer(RELEASE)
    monkeypatch.setattr("fer_lib.inference.recognizer.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="'balanced': PyTorch, which computes saliency maps, is not"):
        _ = recognizer.checkpoint


def test_unknown_variant_is_told_with_the_known_ones():
    known = "accurate, float, balanced, tiny"
    with pytest.raises(ModelError, match=f"variant: expected one of {known} of .*, found 'int4'"):
        Recognizer(RELEASE, variant="int4")


def test_int8_network_runs_in_onnx_runtime_alone():
    with pytest.raises(ModelError, match="'balanced' runs in ONNX Runtime alone"):
        Recognizer(RELEASE, variant="balanced", backend="torch")
