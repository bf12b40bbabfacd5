import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from fer_lib import privacy
from fer_lib.preprocessing import Preprocessing


def test_attack_is_the_auroc_of_the_loss():
    rng = np.random.default_rng(0)
    members, others = rng.exponential(0.5, 200), rng.exponential(1.0, 200)
    found = privacy.attack_membership(members, others, 50, 0)
    expected = roc_auc_score(np.repeat([1, 0], 200), -np.concatenate([members, others]))
    assert found["auroc"][0] == pytest.approx(expected)
    assert found["auroc"][1] < expected < found["auroc"][2]


def test_same_losses_give_nothing_away_and_separate_ones_everything():
    same = np.random.default_rng(1).random(300)
    assert privacy.attack_membership(same, same, 20, 0)["auroc"][0] == pytest.approx(0.5)
    found = privacy.attack_membership(np.zeros(50), np.ones(50), 20, 0)
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

    pictures = privacy.invert_classes(Matcher(), Preprocessing(side, (0.5,) * 3, (0.5,) * 3), 2)
    for picture, pattern in zip(pictures, patterns.numpy(), strict=True):
        assert np.corrcoef(picture.ravel(), pattern.ravel())[0, 1] > 0.8
