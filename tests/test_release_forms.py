import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import REPO

from fer_lib.deployment import release_forms
from fer_lib.errors import ModelError
from fer_lib.inference.recognizer import Recognizer
from fer_lib.models.checkpoints import DEFAULT_MODEL, list_forms, read_config

COMMITTED = REPO / "models" / "release" / DEFAULT_MODEL


@pytest.fixture
def release(tmp_path, monkeypatch):
    """A release without forms, and a data set whose stage `compression` names two networks."""
    folder = tmp_path / "release" / "mine"
    shutil.copytree(COMMITTED, folder, ignore=shutil.ignore_patterns("*.int8.onnx", "*.tiny.onnx"))
    config = read_config(folder)
    small = config.pop("forms")
    (folder / "config.json").write_text(json.dumps(config))
    sources = {"net.int8": "model.int8.onnx", "dwarf.int8": "model.tiny.onnx"}
    for name, file in sources.items():
        forms = tmp_path / "forms" / name.split(".")[0]
        forms.mkdir(parents=True)
        shutil.copy(COMMITTED / file, forms / "int8.onnx")
    found = {
        "int8.form": "net.int8",
        "device.smallest": "dwarf.int8",
        "parent": "student",
        "machine": "a machine",
    }
    found |= {f"time.{name}.ms_1_1": 0.5 for name in sources} | {"time.student.float32.ms_1_1": 2.0}
    checkpoints = {"net": small["int8"], "dwarf": small["tiny"]}

    def load(path):
        entry = checkpoints[path.name]
        return SimpleNamespace(config={**entry, "device": "cpu", "params": {"training": entry["training"]}})

    data = SimpleNamespace(data_hash=config["data_hash"])
    monkeypatch.setattr(release_forms, "RELEASE_DIR", tmp_path / "release")
    monkeypatch.setattr(release_forms, "load_packed", lambda _: data)
    monkeypatch.setattr(release_forms, "read_metrics", lambda *_: found)
    monkeypatch.setattr(release_forms, "load_checkpoint", load)
    monkeypatch.setattr(release_forms, "get_forms_dir", lambda _, name: tmp_path / "forms" / name)
    scored = {"test.accuracy": 0.5, "test.accuracy_lo": 0.4, "test.accuracy_hi": 0.6}
    monkeypatch.setattr(
        release_forms, "score_release", lambda recognizer, _: {**scored, "form": recognizer.form}
    )
    return folder, data


def test_forms_are_put_beside_the_release_and_run(release):
    folder, _ = release
    assert release_forms.add_forms("fer2013", "mine") == ["int8", "tiny"]
    forms = list_forms(read_config(folder))
    assert [form["file"] for form in forms.values()] == ["model.onnx", "model.int8.onnx", "model.tiny.onnx"]
    assert [form["milliseconds"] for form in forms.values()] == [2.0, 0.5, 0.5]
    for name in ("int8", "tiny"):
        assert forms[name]["metrics"]["form"] == name  # scored in that form
        assert forms[name]["bytes"] == (folder / f"model.{name}.onnx").stat().st_size
        assert Recognizer.load(folder, form=name).compute_probabilities(
            np.zeros((1, 48, 48), np.uint8)
        ).sum() == pytest.approx(1)


def test_card_lists_what_each_form_costs(release):
    folder, _ = release
    release_forms.add_forms("fer2013", "mine")
    card = (folder / "README.md").read_text()
    assert "## Smaller and faster" in card
    assert (
        "| `tiny` | `model.tiny.onnx` | face_resnet_tiny | 64 | 0.9 | 0.50 | 50.0% [40.0%, 60.0%] |" in card
    )


def test_release_of_other_data_is_left_alone(release):
    folder, data = release
    data.data_hash = "other"
    with pytest.raises(ModelError, match="made of other data than those of fer2013"):
        release_forms.add_forms("fer2013", "mine")
    assert list(list_forms(read_config(folder))) == ["float"]
