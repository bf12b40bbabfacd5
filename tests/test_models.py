import json

import pytest
import torch
from safetensors.torch import save_file

from fer_lib.errors import ModelError
from fer_lib.models.build import create_model, load_checkpoint, save_checkpoint

SMALL = "test_efficientnet"
"""timm's own miniature of an EfficientNet, made for tests."""

CONFIG = {
    "architecture": SMALL,
    "emotions": ["happy", "sad"],
    "preprocessing": {"image_size": 32, "mean": [0.5] * 3, "std": [0.5] * 3},
}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "baseline"
    save_checkpoint(path, create_model(SMALL, 2), CONFIG)
    return path


def test_a_new_network_starts_near_even_odds():
    # Cross-entropy then starts at about ln 7, not at the tens that timm's scale for 1,000 classes gives.
    probabilities = create_model("tf_efficientnet_b0", 7).eval()(torch.randn(4, 3, 64, 64)).softmax(1)
    assert (probabilities - 1 / 7).abs().max() < 0.2


def test_checkpoint_round_trip_keeps_logits_and_config(tmp_path):
    model = create_model(SMALL, 2, dropout=0.5).eval()
    save_checkpoint(tmp_path / "c", model, CONFIG)
    loaded = load_checkpoint(tmp_path / "c")
    images = torch.randn(3, 3, 32, 32)
    assert torch.allclose(loaded.model(images), model(images), atol=1e-6)
    assert loaded.config == CONFIG
    assert loaded.emotions == ("happy", "sad")
    assert loaded.preprocessing.image_size == 32


def test_saving_again_replaces_the_folder_and_leaves_nothing_else(folder):
    (folder / "stale").touch()
    save_checkpoint(folder, create_model(SMALL, 2), CONFIG)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert [p.name for p in folder.parent.iterdir()] == ["baseline"]


def test_unknown_architecture_is_named():
    with pytest.raises(ModelError, match=r"training\.architecture.*'efficientnet_b99'"):
        create_model("efficientnet_b99", 7)


def break_nothing_there(folder):
    (folder / "model.safetensors").unlink()


def break_truncated(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def break_other_network(folder):
    save_file({"weight": torch.zeros(2)}, folder / "model.safetensors")


def break_config_text(folder):
    (folder / "config.json").write_text("{")


def break_config_key(folder):
    (folder / "config.json").write_text(json.dumps({"architecture": SMALL}))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (break_nothing_there, "model.safetensors"),
        (break_truncated, "model.safetensors"),
        (break_other_network, "model.safetensors"),
        (break_config_text, "config.json"),
        (break_config_key, "config.json"),
    ],
)
def test_damaged_checkpoint_gives_one_line_naming_the_file(folder, damage, named):
    damage(folder)
    with pytest.raises(ModelError) as error:
        load_checkpoint(folder)
    assert named in str(error.value)
    assert "\n" not in str(error.value)
