import numpy as np
import pytest
import torch

from fer_lib.data.packed import load_packed
from fer_lib.errors import ModelError
from fer_lib.labels import EMOTIONS_7
from fer_lib.models.build import create_model, save_checkpoint
from fer_lib.models.preprocessing import Preprocessing
from fer_lib.paths import get_output_dirs
from fer_lib.training import teacher
from fer_lib.training.ensemble import fit_weights, vote
from fer_lib.training.targets import read_teacher
from fer_lib.training.teacher import write_teacher
from fer_lib.training.predict import FLIP, Predictor

MEMBERS = ("b0", "lite0", "resnet18")
PREPROCESSING = Preprocessing(32, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def data(enter_project, tiny_project):
    enter_project(teacher, tiny_project)
    return load_packed("demo", tiny_project / "data" / "packed" / "demo")


def save_member(dirs, name, data_hash):
    """Save an untrained network whose small differences between faces are made large."""
    torch.manual_seed(MEMBERS.index(name))
    model = create_model("test_efficientnet", 7).eval()
    model.get_classifier().weight.data.mul_(3000)
    config = {
        "architecture": "test_efficientnet",
        "emotions": list(EMOTIONS_7),
        "data_hash": data_hash,
        "preprocessing": PREPROCESSING.to_dict(),
    }
    save_checkpoint(dirs.models / name, model, config)
    return model


def test_teacher_is_the_weighted_vote_on_the_training_faces_and_their_mirror_images(data, tmp_path):
    dirs = get_output_dirs("demo", tmp_path)
    models = [save_member(dirs, name, data.data_hash) for name in MEMBERS]
    path = write_teacher("demo", tmp_path)
    assert path == dirs.models / "teacher.parquet"
    rows, said = read_teacher(path, data)
    assert rows.tolist() == data.get_rows("train").tolist()
    val = data.get_rows("val")
    alone = np.stack([Predictor(model, PREPROCESSING).predict(data.faces, val) for model in models])
    both = np.stack([Predictor(model, PREPROCESSING).predict(data.faces, rows, FLIP) for model in models])
    expected = vote(both, fit_weights(alone, data.labels[val]))
    assert said == pytest.approx(expected, abs=1e-4)
    assert said.std(axis=0).max() > 0.01  # faces differ, or a wrong order of rows would not show


def test_member_trained_on_other_data_is_refused(data, tmp_path):
    dirs = get_output_dirs("demo", tmp_path)
    for name in MEMBERS:
        save_member(dirs, name, "0" * 64)
    with pytest.raises(ModelError, match="checkpoint and data differ"):
        write_teacher("demo", tmp_path)
