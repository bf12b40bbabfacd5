from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from fer_lib.analysis import privacy
from fer_lib.evaluation.bootstrap import Bootstrap
from fer_lib.models.preprocessing import Preprocessing


def test_attack_is_the_auroc_of_the_loss():
    rng = np.random.default_rng(0)
    members, others = rng.exponential(0.5, 200), rng.exponential(1.0, 200)
    found = privacy.infer_membership(members, others, Bootstrap(400, 50, 0))
    expected = roc_auc_score(np.repeat([1, 0], 200), -np.concatenate([members, others]))
    assert found["auroc"][0] == pytest.approx(expected)
    assert found["auroc"][1] < expected < found["auroc"][2]


def test_faces_of_one_person_count_once():
    rng = np.random.default_rng(2)
    members, others = rng.exponential(0.7, 40), rng.exponential(1.0, 40)
    apart = privacy.infer_membership(members, others, Bootstrap(80, 300, 0))["auroc"]
    ten_times = [np.repeat(values, 10) for values in (members, others)]
    together = privacy.infer_membership(*ten_times, Bootstrap(800, 300, 0, np.repeat(np.arange(80), 10)))[
        "auroc"
    ]
    assert together[0] == pytest.approx(apart[0])
    assert together[2] - together[1] == pytest.approx(apart[2] - apart[1], rel=0.2)


def test_same_losses_leak_nothing_and_separate_ones_everything():
    same = np.random.default_rng(1).random(300)
    assert privacy.infer_membership(same, same, Bootstrap(600, 20, 0))["auroc"][0] == pytest.approx(0.5)
    found = privacy.infer_membership(np.zeros(50), np.ones(50), Bootstrap(100, 20, 0))
    assert found["auroc"][0] == 1
    assert found["advantage"][0] == 1


def test_inversion_finds_what_a_class_looks_like():
    side = 16
    patterns = torch.zeros(2, side, side)
    patterns[0, :8], patterns[1, 8:] = 1, 1

    class Matcher(nn.Module):
        def forward(self, images):
            grey = images.mean(dim=1)
            return 0.2 * torch.einsum("nhw,chw->nc", grey, patterns)

    images = privacy.invert_classes(Matcher(), Preprocessing(side, (0.5,) * 3, (0.5,) * 3), 2)
    for image, pattern in zip(images, patterns.numpy(), strict=True):
        assert np.corrcoef(image.ravel(), pattern.ravel())[0, 1] > 0.8
        assert np.abs(image).max() <= 1  # an image's pixels, normalised


def test_as_many_faces_of_each_class_are_searched():
    data = SimpleNamespace(labels=np.array([0, 0, 0, 1, 0, 1, 1, 1]), emotions=("happy", "sad"))
    rows = {"train": np.array([0, 1, 2, 3]), "unseen": np.array([4, 5, 6, 7])}
    found = privacy.match_classes(data, rows)
    assert {split: chosen.tolist() for split, chosen in found.items()} == {"train": [0, 3], "unseen": [4, 5]}
