import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from fer_lib.analysis import faithfulness
from fer_lib.analysis.explain import METHODS, compute_saliency, find_stage, list_stages
from fer_lib.models.build import create_model

SIDE = 32


class Corner(nn.Module):
    """Says class 1 by the texture of the upper left quarter, and looks nowhere else."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, images):
        texture = self.scale * (images[:, :, : SIDE // 2, : SIDE // 2] ** 2).mean(dim=(1, 2, 3))
        return torch.stack([-texture, texture], dim=1)


def build_maps():
    """Return a map of the quarter that counts and one of the opposite quarter, (2, SIDE, SIDE)."""
    maps = np.zeros((2, SIDE, SIDE), np.float32)
    maps[0, : SIDE // 2, : SIDE // 2] = 1
    maps[1, SIDE // 2 :, SIDE // 2 :] = 1
    return maps


def build_images(n):
    # White noise: what blur takes away.
    return torch.randn(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def test_true_map_deletes_and_inserts_faster_than_a_false_one():
    images, targets, maps = build_images(2), np.array([1, 1]), build_maps()
    right, wrong = (np.stack([m, m]) for m in maps)
    of_right, of_wrong = (
        faithfulness.compute_curves(Corner(), images, targets, found) for found in (right, wrong)
    )
    area = faithfulness.compute_area
    assert (area(of_right["deletion"]) < area(of_wrong["deletion"])).all()
    assert (area(of_right["insertion"]) > area(of_wrong["insertion"])).all()


def test_curves_begin_and_end_at_the_face_and_its_blur():
    images, targets = build_images(2), np.array([1, 1])
    maps = np.random.default_rng(0).random((2, SIDE, SIDE)).astype(np.float32)
    deletion, insertion = faithfulness.compute_curves(Corner(), images, targets, maps).values()
    np.testing.assert_allclose(deletion[:, 0], faithfulness.predict_target(Corner(), images, targets))
    np.testing.assert_allclose(deletion[:, 0], insertion[:, -1])
    np.testing.assert_allclose(deletion[:, -1], insertion[:, 0])


def test_cells_are_ranked_from_the_hottest():
    maps = np.zeros((1, SIDE, SIDE), np.float32)
    maps[0, :2, :2] = 1
    ranks = faithfulness.rank_cells(maps)[0]
    assert ranks[0, 0] == 0
    assert sorted(ranks.ravel()) == list(range(faithfulness.CELLS**2))


def test_equally_hot_cells_are_not_hidden_from_the_top():
    ranks = faithfulness.rank_cells(np.zeros((2, SIDE, SIDE), np.float32))
    first = ranks[0] < faithfulness.CELLS**2 / 2
    assert 0.3 < first[: faithfulness.CELLS // 2].mean() < 0.7
    np.testing.assert_array_equal(ranks[0], ranks[1])


def test_area_of_a_constant_is_the_constant():
    assert faithfulness.compute_area(np.full((1, 11), 0.3)) == pytest.approx(0.3)


def test_energy_and_pointing_by_hand():
    maps, masks = np.zeros((2, 4, 4)), np.zeros((2, 4, 4), bool)
    maps[0, 0, 0], maps[0, 3, 3], masks[0, 0, 0] = 3, 1, True
    np.testing.assert_allclose(
        faithfulness.compute_energy(maps, masks), [0.75, 0.0]
    )  # the second is all zero
    np.testing.assert_array_equal(faithfulness.play_pointing_game(maps, masks), [1, 0])


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 3, 16, 16))
    found = faithfulness.correlate_ranks(a, b)
    expected = [spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(faithfulness.correlate_ranks(a, a), 1)
    assert faithfulness.correlate_ranks(a[:1], np.zeros((1, 16, 16)))[0] == 0


def test_centre_map_is_hottest_at_the_centre():
    found = faithfulness.build_centre_maps(np.array([[0.25, 0.75]]), np.array([0.1]), 40)[0]
    assert np.unravel_index(found.argmax(), found.shape) in [(y, x) for y in (29, 30) for x in (9, 10)]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return create_model("test_resnet", 7).eval()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_maps_every_stage(network, method):
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for stage in list_stages(network):
        maps = compute_saliency(network, images, np.array([0, 1]), stage, method)
        assert maps.shape == (2, SIDE, SIDE)
        assert maps.min() >= 0
        assert maps.max() <= 1
    assert not any(layer._forward_hooks for layer in network.modules())


def test_randomising_changes_the_map_and_not_the_network(network):
    images = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = faithfulness.randomise_layers(network, images, np.zeros(4, int), find_stage(network), seed=0)
    assert len(found) > 3
    assert np.nanmean(list(found.values())[-1]) < 0.9
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_flat_map_of_random_weights_says_nothing(network, monkeypatch):
    maps = iter([np.random.default_rng(0).random((1, SIDE, SIDE)), *[np.zeros((1, SIDE, SIDE))] * 99])
    monkeypatch.setattr(faithfulness, "compute_saliency", lambda *_: next(maps))
    found = faithfulness.randomise_layers(network, build_images(1), np.zeros(1, int), "layer4", seed=0)
    assert all(np.isnan(values).all() for values in found.values())


def test_map_of_an_unmoved_face_is_stable(network):
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    asked = (network, images, np.zeros(2, int), find_stage(network))
    np.testing.assert_allclose(faithfulness.measure_stability(*asked, shift=0), 1)
    assert (faithfulness.measure_stability(*asked, shift=4) < 1).all()
