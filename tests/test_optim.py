import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812

from fer_lib.errors import ParamsError
from fer_lib.params import load_params
from fer_lib.params_file import read_params_file
from fer_lib.training.optim import LOSSES, build_loss, focal_loss


def draw(seed: int, n: int = 16, c: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, c, generator=generator) * 5
    return logits, torch.randint(c, (n,), generator=generator)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), smoothing=st.floats(0, 0.5))
def test_gamma_zero_is_cross_entropy(seed, smoothing):
    logits, labels = draw(seed)
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    assert focal_loss(logits, labels, 0.0, smoothing).item() == pytest.approx(expected.item(), rel=1e-5)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), gamma=st.floats(0.5, 5))
def test_focal_is_the_weighted_log_likelihood(seed, gamma):
    logits, labels = draw(seed)
    p = logits.double().softmax(1)[torch.arange(len(labels)), labels]
    expected = ((1 - p) ** gamma * -p.log()).mean()
    assert focal_loss(logits, labels, gamma).item() == pytest.approx(expected.item(), rel=1e-4)


def test_focal_by_hand():
    # p = 0.75 for the label: (1 - 0.75)^2 * -ln 0.75.
    logits = torch.tensor([[math.log(3.0), 0.0]])
    assert focal_loss(logits, torch.tensor([0]), 2.0).item() == pytest.approx(0.0625 * math.log(4 / 3))


def test_class_weights_are_pytorchs():
    logits, labels = draw(3)
    weights = torch.rand(7, generator=torch.Generator().manual_seed(4)) + 0.1
    expected = F.cross_entropy(logits, labels, weights, label_smoothing=0.1)
    assert focal_loss(logits, labels, 0.0, 0.1, weights).item() == pytest.approx(expected.item(), rel=1e-5)


def test_one_hot_targets_equal_class_indices():
    logits, labels = draw(0)
    hard = focal_loss(logits, labels, 2.0)
    assert focal_loss(logits, F.one_hot(labels, 7).float(), 2.0).item() == pytest.approx(hard.item())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_gradient_is_finite_when_the_network_is_certain(gamma):
    logits = torch.tensor([[100.0, -100.0], [-100.0, 100.0]], requires_grad=True)
    focal_loss(logits, torch.tensor([0, 0]), gamma).backward()
    assert torch.isfinite(logits.grad).all()


def test_build_loss_reads_the_parameters():
    logits, labels = draw(1)
    training = load_params("demo").training
    targets = F.one_hot(torch.tensor([0] * 6 + [1] * 3 + [2]), 7).float().numpy()
    focal = build_loss(training.model_copy(update={"loss": "focal", "focal_gamma": 2.0}), targets)
    plain = build_loss(training.model_copy(update={"loss": "cross_entropy"}), targets)
    assert focal(logits, labels).item() == pytest.approx(focal_loss(logits, labels, 2.0).item())
    assert plain(logits, labels).item() == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    weighted = build_loss(training.model_copy(update={"loss": "weighted_cross_entropy"}), targets)
    # Six, three and one of ten faces, seven classes; the labels drawn below are of these three alone.
    rare = labels % 3
    weights = torch.tensor([10 / 42, 10 / 21, 10 / 7, 1, 1, 1, 1])
    expected = F.cross_entropy(logits, rare, weights)
    assert weighted(logits, rare).item() == pytest.approx(expected.item(), rel=1e-5)


def find_losses(values):
    """Return every loss that is named anywhere in the parameters."""
    found = {values["loss"]} if isinstance(values.get("loss"), str) else set()
    return found.union(*(find_losses(value) for value in values.values() if isinstance(value, dict)))


def test_every_loss_of_the_parameters_is_registered():
    found = find_losses(read_params_file())
    assert {"focal", "cross_entropy"} <= found <= LOSSES.keys()


def test_an_unknown_loss_is_one_line_with_the_known_ones():
    training = load_params("demo").training.model_copy(update={"loss": "hinge"})
    with pytest.raises(ParamsError, match=r"training\.loss: no 'hinge'; known: focal, cross_entropy"):
        build_loss(training, torch.eye(7).numpy())
