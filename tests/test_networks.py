import numpy as np
import pytest
import timm
import torch

from fer_lib.errors import ModelError
from fer_lib.evaluation.metrics import group_probabilities
from fer_lib.labels import EMOTIONS_7, EMOTIONS_8
from fer_lib.models.build import create_model, load_checkpoint, save_checkpoint
from fer_lib.models.networks import (
    CHANNEL_STEP,
    HierarchicalHead,
    attach_hierarchical_head,
    count_macs,
    match_shapes,
    prune_channels,
)

SIZE = 32
CONFIG = {
    "architecture": "test_efficientnet",
    "emotions": ["happy", "sad"],
    "preprocessing": {"image_size": SIZE, "mean": [0.5] * 3, "std": [0.5] * 3},
}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return create_model("test_efficientnet", 2)


def test_multiply_adds_are_those_counted_by_hand():
    # A convolution 3 to 4, 3 x 3, on 8 x 8 outputs: 4 * 3 * 9 * 64; timm's ResNet adds more, so a plain one.
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1, bias=False))
    assert count_macs(model, 8) == 4 * 3 * 9 * 64


@pytest.mark.parametrize("share", [0.8, 0.5])
def test_pruned_network_has_at_most_that_share_of_the_multiply_adds(network, share):
    full = count_macs(network, SIZE)
    prune_channels(network, SIZE, share * full)
    assert count_macs(network, SIZE) <= share * full
    assert network(torch.zeros(3, 3, SIZE, SIZE)).shape == (3, 2)  # the classes stay


def test_channels_stay_whole_vectors(network):
    prune_channels(network, SIZE, 0.6 * count_macs(network, SIZE))
    before = create_model("test_efficientnet", 2)
    for pruned, whole in zip(network.modules(), before.modules(), strict=True):
        if isinstance(pruned, torch.nn.Conv2d) and pruned.out_channels != whole.out_channels:
            assert pruned.out_channels % CHANNEL_STEP == 0


def test_pruning_takes_the_weakest_channels():
    torch.manual_seed(0)
    model = create_model("test_resnet", 2)
    prune_channels(model, SIZE, 0.7 * count_macs(model, SIZE))
    torch.manual_seed(0)
    whole = create_model("test_resnet", 2)
    norms = {n: p.norm().item() / p.numel() ** 0.5 for n, p in whole.named_parameters() if p.ndim == 4}
    kept = {n: p.norm().item() / p.numel() ** 0.5 for n, p in model.named_parameters() if p.ndim == 4}
    # What is left weighs more on average than what there was.
    assert np.mean(list(kept.values())) > np.mean(list(norms.values()))


def test_impossible_share_is_refused(network):
    with pytest.raises(ModelError, match=r"training\.macs: expected at most 1 multiply-adds"):
        prune_channels(network, SIZE, 1)


def test_training_mode_is_kept(network):
    network.train()
    prune_channels(network, SIZE, 0.8 * count_macs(network, SIZE))
    assert network.training


def test_pruned_checkpoint_gives_the_same_logits_when_loaded(network, tmp_path):
    prune_channels(network, SIZE, 0.5 * count_macs(network, SIZE))
    network.eval()
    save_checkpoint(tmp_path / "pruned", network, {**CONFIG, "pruned": True})
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.inference_mode():
        loaded = load_checkpoint(tmp_path / "pruned").model(images)
        assert torch.allclose(loaded, network(images), atol=1e-5)


def test_shapes_that_are_right_already_are_left_alone(network):
    parameters = list(network.parameters())
    match_shapes(network, network.state_dict())
    assert all(a is b for a, b in zip(network.parameters(), parameters, strict=True))


def test_checkpoint_that_is_not_pruned_must_fit(network, tmp_path):
    prune_channels(network, SIZE, 0.5 * count_macs(network, SIZE))
    save_checkpoint(tmp_path / "model", network, CONFIG)
    with pytest.raises(ModelError, match="does not fit test_efficientnet"):
        load_checkpoint(tmp_path / "model")


@pytest.mark.parametrize(("name", "most"), [("face_resnet", 4.3e6), ("face_resnet_tiny", 0.9e6)])
def test_own_architectures_are_known_to_timm(name, most):
    model = timm.create_model(name, num_classes=7).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) < most
    assert not any(m.groups > 1 for m in model.modules() if isinstance(m, torch.nn.Conv2d))
    # 48 pixels still leave a map of 3 x 3 at the end.
    assert model.forward_features(torch.zeros(1, 3, 48, 48)).shape[-2:] == (3, 3)


def test_probabilities_are_the_product_of_the_two_levels():
    torch.manual_seed(0)
    head = HierarchicalHead(5, EMOTIONS_8)
    features = torch.randn(4, 5) * 30  # far from even odds
    log_probabilities = head(features)
    probabilities = log_probabilities.exp().detach()
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(4), atol=1e-5)
    assert torch.allclose(log_probabilities.softmax(dim=1), probabilities, atol=1e-6)
    groups = head.coarse(features).softmax(dim=1).detach()
    assert np.allclose(group_probabilities(probabilities.numpy(), EMOTIONS_8), groups.numpy(), atol=1e-6)
    happy, surprise = EMOTIONS_8.index("happy"), EMOTIONS_8.index("surprise")
    fine = head.fine(features)[:, [happy, surprise]].softmax(dim=1).detach()
    assert torch.allclose(probabilities[:, [happy, surprise]], fine * groups[:, :1], atol=1e-6)


def test_checkpoint_brings_its_head_back(tmp_path):
    model = create_model("test_efficientnet", 7).eval()
    attach_hierarchical_head(model, EMOTIONS_7)
    config = {**CONFIG, "emotions": list(EMOTIONS_7), "head": "hierarchical"}
    save_checkpoint(tmp_path / "c", model, config)
    images = torch.randn(2, 3, SIZE, SIZE)
    assert torch.allclose(load_checkpoint(tmp_path / "c").model(images), model(images), atol=1e-6)
