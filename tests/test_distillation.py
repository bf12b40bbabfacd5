import numpy as np
import pytest
import torch

from fer_lib.errors import ModelError
from fer_lib.models.build import create_model, save_checkpoint
from fer_lib.models.preprocessing import Preprocessing, preprocess
from fer_lib.params import load_params
from fer_lib.training.distillation import Teacher, build_teacher
from fer_lib.training.fit import train_on_batch
from fer_lib.training.optim import build_loss

EMOTIONS = ("happy", "sad")
CPU = torch.device("cpu")
OWN = Preprocessing(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    model = create_model("test_resnet", 2)
    torch.nn.init.normal_(model.get_classifier().weight)  # or it would say 50 % of everything
    config = {"architecture": "test_resnet", "emotions": EMOTIONS, "preprocessing": OWN.to_dict()}
    save_checkpoint(tmp_path / "teacher", model, config)
    return tmp_path / "teacher"


def predict(folder, faces):
    from fer_lib.models.build import load_checkpoint

    with torch.inference_mode():
        logits = load_checkpoint(folder).model(torch.from_numpy(preprocess(faces, OWN)))
    return logits.softmax(dim=1)


def test_teacher_sees_what_the_student_is_shown_in_its_own_normalisation(folder):
    faces = list(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8))
    other = Preprocessing(32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    said = Teacher(folder, EMOTIONS, other, CPU)(torch.from_numpy(preprocess(faces, other)))
    assert torch.allclose(said, predict(folder, faces), atol=1e-5)


def test_teacher_of_another_size_gets_the_batch_resized(folder):
    larger = Preprocessing(48, OWN.mean, OWN.std)
    said = Teacher(folder, EMOTIONS, larger, CPU)(torch.zeros(2, 3, 48, 48))
    assert said.shape == (2, 2)
    grey = [np.full((32, 32, 3), 127, np.uint8)]  # a plain picture is the same at any size
    assert torch.allclose(said[0], predict(folder, grey)[0], atol=0.02)


def test_teacher_of_other_classes_is_refused(folder):
    with pytest.raises(ModelError, match=r"training\.teacher: .* expected a network of sad, happy"):
        Teacher(folder, ("sad", "happy"), OWN, CPU)


def test_missing_teacher_is_named(tmp_path):
    training = load_params("demo").training.model_copy(update={"teacher": tmp_path / "nobody"})
    with pytest.raises(ModelError, match="nobody: expected a checkpoint folder"):
        build_teacher(training, EMOTIONS, OWN, CPU)


@pytest.mark.parametrize("teacher", [None, "teacher.parquet"])
def test_no_teacher_looks_on_without_one_or_with_a_table(tmp_path, teacher):
    training = load_params("demo").training
    training = training.model_copy(update={"teacher": teacher and tmp_path / teacher})
    assert build_teacher(training, EMOTIONS, OWN, CPU) is None


def test_targets_are_the_mean_of_labels_and_teacher():
    seen = []
    training = load_params("demo").training.model_copy(update={"loss": "cross_entropy"})
    loss = build_loss(training, np.eye(2, dtype=np.float32))

    def record(logits, targets):
        seen.append(targets)
        return loss(logits, targets)

    model = create_model("test_resnet", 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    labels, said = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.6, 0.4], [0.2, 0.8]])
    train_on_batch(model, torch.zeros(2, 3, 32, 32), labels, record, optimizer, CPU, None, lambda _: said)
    assert torch.allclose(seen[0], torch.tensor([[0.8, 0.2], [0.1, 0.9]]))
