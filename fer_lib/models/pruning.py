"""Remove whole channels of a network, so that what is left is a smaller dense network and runs faster."""

from collections.abc import Mapping

import torch
import torch_pruning
from torch import nn

from fer_lib.errors import ModelError
from fer_lib.models.networks import get_classifier

CHANNEL_STEP = 16
"""Channels stay a multiple of this: a vector of AVX-512 holds 16 floats, fewer would leave lanes idle."""

MOST_PRUNED = 0.9
"""Of a layer's channels at most this share goes."""

N_STEPS = 60
"""The share that goes grows in so many steps; pruning stops at the first that is small enough."""


def count_macs(model: nn.Module, image_size: int) -> int:
    """Return the multiply-adds of one face of image_size x image_size pixels."""
    return int(torch_pruning.utils.count_ops_and_params(model, _make_example(model, image_size))[0])


def prune_channels(model: nn.Module, image_size: int, n_macs: float) -> None:
    """Remove the channels of least weight, in place, until at most `n_macs` multiply-adds are left.

    Channels that add up or multiply with one another go together, as Torch-Pruning's graph of dependencies
    says (Fang et al. 2023); groups of the same shape compete with one another alone (isomorphic pruning, Fang
    et al. 2024). The importance of a channel is the norm of all weights that would go with it. The outputs of
    the classifier stay. Raises ModelError when the network cannot become so small.
    """
    training, example = model.training, _make_example(model, image_size)
    model.eval()
    pruner = torch_pruning.pruner.BasePruner(
        model,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        isomorphic=True,
        pruning_ratio=MOST_PRUNED,
        max_pruning_ratio=MOST_PRUNED,
        iterative_steps=N_STEPS,
        round_to=CHANNEL_STEP,
        ignored_layers=list(get_classifier(model).modules()),
    )
    for _ in range(N_STEPS):
        if count_macs(model, image_size) <= n_macs:
            model.train(training)
            return
        pruner.step()
    raise ModelError(
        f"training.macs: expected at most {n_macs:,.0f} multiply-adds, pruning ends at "
        f"{count_macs(model, image_size):,}; ask for less pruning"
    )


def match_shapes(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give every layer of `model` the shape of its tensors in `tensors`, in place; the values stay undefined.

    So a pruned network is built from its architecture's name and its file, which holds what was left of it.
    """
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        for key, value in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            stored = tensors.get(prefix + key)
            if stored is not None and stored.shape != value.shape:
                empty = torch.empty(stored.shape, dtype=value.dtype, device=value.device)
                setattr(module, key, nn.Parameter(empty) if isinstance(value, nn.Parameter) else empty)
        if isinstance(module, nn.Conv2d):
            module.out_channels = module.weight.shape[0]
            module.groups = module.out_channels if module.groups > 1 else 1  # all groups here are depthwise
            module.in_channels = module.weight.shape[1] * module.groups
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.num_features = module.weight.shape[0]
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape


def _make_example(model: nn.Module, image_size: int) -> torch.Tensor:
    return torch.zeros(1, 3, image_size, image_size, device=next(model.parameters()).device)
