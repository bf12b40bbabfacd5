import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_lib.data.packed import load_packed
from fer_lib.errors import ModelError
from fer_lib.labels import EMOTIONS_7
from fer_lib.models.build import create_model, save_checkpoint
from fer_lib.models.preprocessing import Preprocessing
from fer_lib.paths import get_output_dirs
from fer_lib.training import networks
from fer_lib.training.networks import write_teacher
from fer_lib.training.predict import FLIP, Predictor
from fer_lib.training.targets import read_teacher
from fer_lib.training.voting import fit_weights, vote


def draw(seed: int, n_models: int = 3, n: int = 400, c: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(c, size=n)
    logits = rng.normal(size=(n_models, n, c)) + 2 * np.eye(c)[labels]
    return np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True), labels


def compute_nll(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())


def test_vote_by_hand():
    probabilities = np.array([[[0.8, 0.2]], [[0.4, 0.6]]])
    assert vote(probabilities, np.array([0.25, 0.75]))[0].tolist() == pytest.approx([0.5, 0.5])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_no_other_weights_fit_validation_better(seed):
    probabilities, labels = draw(seed)
    weights = fit_weights(probabilities, labels)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    best = compute_nll(vote(probabilities, weights), labels)
    others = np.random.default_rng(seed).dirichlet(np.ones(3), size=200)
    assert min(compute_nll(vote(probabilities, other), labels) for other in others) > best - 1e-6


def test_a_member_that_only_guesses_gets_no_weight():
    probabilities, labels = draw(1)
    probabilities[2] = 1 / 7
    assert fit_weights(probabilities, labels)[2] < 0.01


MEMBERS = ("b0", "lite0", "resnet18")
PREPROCESSING = Preprocessing(32, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def data(enter_project, tiny_project):
    enter_project(networks, tiny_project)
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
    rows, taught = read_teacher(path, data)
    assert rows.tolist() == data.get_rows("train").tolist()
    val = data.get_rows("val")
    alone = np.stack([Predictor(model, PREPROCESSING).predict(data.faces, val) for model in models])
    both = np.stack([Predictor(model, PREPROCESSING).predict(data.faces, rows, FLIP) for model in models])
    expected = vote(both, fit_weights(alone, data.labels[val]))
    assert taught == pytest.approx(expected, abs=1e-4)
    assert taught.std(axis=0).max() > 0.01  # faces differ, or a wrong order of rows would not show


def test_member_trained_on_other_data_is_refused(data, tmp_path):
    dirs = get_output_dirs("demo", tmp_path)
    for name in MEMBERS:
        save_member(dirs, name, "0" * 64)
    with pytest.raises(ModelError, match="checkpoint and data differ"):
        write_teacher("demo", tmp_path)
