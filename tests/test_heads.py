import numpy as np
import torch

from fer_lib.evaluation.metrics import group_probabilities
from fer_lib.labels import EMOTIONS_7, EMOTIONS_8
from fer_lib.models.build import create_model, load_checkpoint, save_checkpoint
from fer_lib.models.networks import HierarchicalHead, attach_hierarchical_head


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
    preprocessing = {"image_size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
    config = {"architecture": "test_efficientnet", "emotions": list(EMOTIONS_7)}
    save_checkpoint(tmp_path / "c", model, config | {"head": "hierarchical", "preprocessing": preprocessing})
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(load_checkpoint(tmp_path / "c").model(images), model(images), atol=1e-6)
