from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_lib.errors import DataError, ModelError
from fer_lib.labels import EMOTIONS_7, VOTES
from fer_lib.models.build import create_model, save_checkpoint
from fer_lib.models.preprocessing import Preprocessing, preprocess
from fer_lib.param_sections import TargetShares
from fer_lib.params import load_params
from fer_lib.training.optim import build_loss
from fer_lib.training.steps import train_on_batch
from fer_lib.training.targets import build_targets, choose_labels, count_votes, has_votes, share_classes
from fer_lib.training.teacher import Teacher, build_teachers
from fer_lib.training.transforms import mix_batch

TRAINING = load_params("demo").training
ANGRY, HAPPY, NEUTRAL = (EMOTIONS_7.index(name) for name in ("angry", "happy", "neutral"))


@dataclass
class Store:
    """Three faces with FER+ votes: a clear one, a split one, and one that nobody could name."""

    emotions: tuple[str, ...] = EMOTIONS_7
    meta: dict = field(default_factory=lambda: {"dataset": "three"})

    def __post_init__(self):
        self.labels = np.array([HAPPY, ANGRY, NEUTRAL])
        votes = pd.DataFrame(0, index=range(3), columns=[f"votes_{name}" for name in VOTES])
        votes.loc[0, "votes_happiness"] = 10
        # The single vote for sadness is an outlier; contempt is no class of seven.
        votes.loc[1, ["votes_neutral", "votes_anger", "votes_sadness", "votes_contempt"]] = 4, 2, 1, 3
        votes.loc[2, "votes_unknown"] = 10
        self.index = votes.assign(row=range(3))

    def get_rows(self, split):
        return np.arange(3)


def build_training(teachers=(), **shares: float):
    return TRAINING.model_copy(update={"targets": TargetShares(**shares), "teachers": teachers})


def build(teachers=(), **shares: float) -> np.ndarray:
    return build_targets(Store(), build_training(teachers, **shares))


def place(**shares: float) -> list[float]:
    return [shares.get(name, 0.0) for name in EMOTIONS_7]


def test_votes_become_shares_of_the_known_emotions_without_single_votes():
    assert build(votes=1).tolist() == [
        pytest.approx(place(happy=1)),
        pytest.approx(place(neutral=4 / 6, angry=2 / 6)),
        pytest.approx(place(neutral=1)),  # no usable vote: its label stays
    ]


def test_majority_and_mixtures_by_hand():
    assert build(majority=1)[1].tolist() == place(neutral=1)
    assert build(label=0.5, votes=0.5)[1].tolist() == pytest.approx(place(angry=0.5 + 1 / 6, neutral=1 / 3))
    assert build(label=0.2, majority=0.8)[1].tolist() == pytest.approx(place(angry=0.2, neutral=0.8))
    assert build(label=1).tolist() == np.eye(7)[[HAPPY, ANGRY, NEUTRAL]].tolist()


@settings(max_examples=50, deadline=None)
@given(parts=st.tuples(*[st.integers(0, 5)] * 3).filter(any))
def test_targets_are_distributions(parts):
    targets = build(**dict(zip(("label", "majority", "votes"), np.array(parts) / sum(parts), strict=True)))
    assert targets.dtype == np.float32
    assert targets.min() >= 0
    assert targets.sum(axis=1).tolist() == pytest.approx([1.0] * 3)


def test_shares_that_do_not_sum_to_one_are_refused():
    with pytest.raises(ValueError, match=r"expected shares that sum to 1, found 0\.9"):
        TargetShares(label=0.5, votes=0.4)


def test_networks_that_learn_from_votes_alone_are_judged_by_the_majority():
    majority = [HAPPY, NEUTRAL, NEUTRAL]  # where nobody could name an emotion, the label
    assert choose_labels(Store(), TargetShares(votes=0.7, teacher=0.3)).tolist() == majority
    assert choose_labels(Store(), TargetShares(majority=1)).tolist() == majority
    assert choose_labels(Store(), TargetShares(label=0.1, votes=0.9)).tolist() == [HAPPY, ANGRY, NEUTRAL]
    assert choose_labels(Store(), TargetShares(teacher=1)).tolist() == [HAPPY, ANGRY, NEUTRAL]


def test_shares_of_the_classes_are_those_of_the_targets():
    training = build_training(label=0.5, votes=0.5)
    shares = share_classes(Store(), training)
    assert shares == pytest.approx(build_targets(Store(), training).mean(axis=0))
    # Teachers that are networks have no part in them: what is left sums to 1 all the same.
    assert share_classes(Store(), build_training(votes=0.7, teacher=0.3)).sum() == pytest.approx(1)


def test_votes_that_are_not_there_are_an_error_in_one_line():
    store = Store()
    store.index = store.index[["row"]]
    with pytest.raises(DataError, match=r"training\.targets: expected FER\+ votes.*'three'.*use `label: 1`"):
        count_votes(store)


def test_table_of_a_teacher_has_its_part_of_the_teachers_share(tmp_path):
    taught = pd.DataFrame([place(happy=0.2, sad=0.8)], columns=[f"probability_{name}" for name in EMOTIONS_7])
    taught.assign(row=[1]).to_parquet(tmp_path / "teacher.parquet")
    table = tmp_path / "teacher.parquet"
    targets = build([table], label=0.5, teacher=0.5)
    assert targets[1].tolist() == pytest.approx(place(angry=0.5, happy=0.1, sad=0.4))
    # The other half of the share is for a network, which adds it while training.
    targets = build([table, tmp_path / "network"], label=0.5, teacher=0.5)
    assert targets[1].tolist() == pytest.approx(place(angry=0.5, happy=0.05, sad=0.2))


def test_a_teacher_that_is_missing_or_of_other_classes_is_named(tmp_path):
    path = tmp_path / "teacher.parquet"
    with pytest.raises(ModelError, match=r"training\.teachers: .*teacher\.parquet: expected"):
        build([path], teacher=1)
    pd.DataFrame({"row": [0], "probability_smug": [1.0]}).to_parquet(path)
    with pytest.raises(ModelError, match=r"training\.teachers: .*probability_angry"):
        build([path], teacher=1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), alpha=st.floats(0.05, 2))
def test_mixup_mixes_images_and_targets_by_the_same_share(seed, alpha):
    # Each image is filled with the number of its own class: the mix of both must agree.
    targets = torch.eye(6)
    images = torch.arange(6.0)[:, None, None, None].expand(6, 3, 4, 4)
    mixed, soft = mix_batch(images, targets, alpha, np.random.default_rng(seed))
    assert soft.sum(dim=1).tolist() == pytest.approx([1.0] * 6)
    assert mixed[:, 0, 0, 0].tolist() == pytest.approx((soft @ torch.arange(6.0)).tolist(), abs=1e-5)


def test_votes_are_there_or_not():
    assert has_votes(pd.DataFrame({f"votes_{name}": [1] for name in VOTES}))
    assert not has_votes(pd.DataFrame({"row": [0], "votes_fear": [1]}))


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
    taught = Teacher(folder, EMOTIONS, other, CPU)(torch.from_numpy(preprocess(faces, other)))
    assert torch.allclose(taught, predict(folder, faces), atol=1e-5)


def test_teacher_of_another_size_gets_the_batch_resized(folder):
    larger = Preprocessing(48, OWN.mean, OWN.std)
    taught = Teacher(folder, EMOTIONS, larger, CPU)(torch.zeros(2, 3, 48, 48))
    assert taught.shape == (2, 2)
    grey = [np.full((32, 32, 3), 127, np.uint8)]  # a uniform image is the same at any size
    assert torch.allclose(taught[0], predict(folder, grey)[0], atol=0.02)


def test_teacher_of_other_classes_is_refused(folder):
    with pytest.raises(ModelError, match=r"training\.teachers: .* expected a network of sad, happy"):
        Teacher(folder, ("sad", "happy"), OWN, CPU)


def test_missing_teacher_is_named(tmp_path):
    training = TRAINING.model_copy(update={"teachers": [tmp_path / "nobody"]})
    with pytest.raises(ModelError, match="nobody: expected a checkpoint folder"):
        build_teachers(training, EMOTIONS, OWN, CPU)


def test_networks_among_the_teachers_see_every_batch_and_tables_do_not(tmp_path, folder):
    for teachers, n_networks in (([], 0), ([tmp_path / "teacher.parquet"], 0), ([folder, folder], 2)):
        training = TRAINING.model_copy(update={"teachers": teachers})
        assert len(build_teachers(training, EMOTIONS, OWN, CPU)) == n_networks


def test_every_teacher_adds_its_share_to_the_targets():
    seen = []
    training = TRAINING.model_copy(update={"loss": "cross_entropy"})
    loss = build_loss(training, np.eye(2, dtype=np.float32))

    def record(logits, targets):
        seen.append(targets)
        return loss(logits, targets)

    model = create_model("test_resnet", 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    given, taught = torch.tensor([[0.5, 0.0], [0.0, 0.5]]), torch.tensor([[0.6, 0.4], [0.2, 0.8]])
    teachers = [lambda _: taught, lambda _: taught.flip(1)]
    images = torch.zeros(2, 3, 32, 32)
    train_on_batch(model, images, given, record, optimizer, CPU, None, teachers, 0.25)
    assert torch.allclose(seen[0], torch.tensor([[0.75, 0.25], [0.25, 0.75]]))
