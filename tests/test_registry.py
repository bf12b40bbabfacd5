import json

import pytest

from fer_lib.errors import ModelError
from fer_lib.inference import registry
from fer_lib.inference.registry import DEFAULT_MODEL, find_checkpoint, list_checkpoints
from fer_lib.models.checkpoints import read_config

CONFIG = {
    "architecture": "test_efficientnet",
    "emotions": ["happy", "sad"],
    "preprocessing": {"image_size": 32, "mean": [0.5] * 3, "std": [0.5] * 3},
}


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Return an empty folder of models that the module looks into."""
    monkeypatch.setattr(registry, "MODELS_DIR", tmp_path / "models")
    monkeypatch.setattr(registry, "RELEASE_DIR", tmp_path / "models" / "release")
    return tmp_path / "models"


def write_config(folder, config=CONFIG):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_releases_come_first_and_the_default_before_all(models):
    for name in ("demo/baseline", "release/a", f"release/{DEFAULT_MODEL}", "release/z"):
        write_config(models / name)
    write_config(models / "release" / ".b.new")  # a release half-way
    write_config(models / ".state" / "demo")
    (models / "demo" / "empty").mkdir()
    assert list(list_checkpoints()) == [DEFAULT_MODEL, "a", "z", "demo/baseline"]
    assert list_checkpoints()["demo/baseline"] == models / "demo" / "baseline"


def test_new_model_is_listed_at_once(models):
    assert list_checkpoints() == {}
    write_config(models / "release" / "a")
    assert list(list_checkpoints()) == ["a"]


def test_model_is_found_by_name_or_folder(models, tmp_path):
    named, other = write_config(models / "release" / "a"), write_config(tmp_path / "elsewhere")
    assert find_checkpoint("a") == named
    assert find_checkpoint(other) == find_checkpoint(str(other)) == other


def test_unknown_model_names_those_there_are(models):
    with pytest.raises(ModelError, match=r"^b: expected .* or one of no models; "):
        find_checkpoint("b")
    write_config(models / "release" / "a")
    write_config(models / "demo" / "baseline")
    with pytest.raises(ModelError, match=r"^b: expected .* or one of a, demo/baseline; "):
        find_checkpoint("b")


def test_config_is_returned_whole(tmp_path):
    config = {**CONFIG, "note": "kept"}
    assert read_config(write_config(tmp_path / "a", config)) == config


def test_folder_without_a_config(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json is missing; train one first"):
        read_config(tmp_path)


def drop(*keys):
    config = json.loads(json.dumps(CONFIG))
    place = config
    for key in keys[:-1]:
        place = place[key]
    del place[keys[-1]]
    return config


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (drop("emotions"), "emotions missing"),
        (drop("architecture"), "architecture missing"),
        (drop("preprocessing"), "preprocessing missing"),
        (drop("preprocessing", "std"), "std missing"),
        ({**CONFIG, "preprocessing": 3}, "not a checkpoint's config"),
        ({**CONFIG, "emotions": 3}, "not a checkpoint's config"),
        ({**CONFIG, "emotions": ["happy", 3]}, "emotions that are no names"),
        ([], "not a checkpoint's config"),
        (None, "not a checkpoint's config"),
    ],
)
def test_damaged_config_gives_one_line_naming_it(tmp_path, config, named):
    folder = write_config(tmp_path / "a", config)
    with pytest.raises(ModelError) as error:
        read_config(folder)
    assert str(error.value).startswith(f"{folder / 'config.json'}: ")
    assert named in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("; train or release it again")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00"])
def test_config_that_is_no_json(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match="not a checkpoint's config"):
        read_config(tmp_path)
