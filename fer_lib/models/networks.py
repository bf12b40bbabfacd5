"""Define the project's own networks, which timm knows by name from here on; change heads; prune channels.

The networks are residual ones for faces of 48 to 64 pixels on small devices: plain 3 x 3 convolutions, batch
norm and ReLU throughout (He et al. 2016), which int8 instructions speed up most and which lose least by them.
No depthwise convolutions, whose few multiplications leave nothing to save; no gates and no SiLU, whose ranges
int8 holds badly. A network for photographs halves its map twice before its first block; these halve it once,
for a face of 48 pixels has no detail to spare.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch_pruning
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fer_lib.errors import ModelError
from fer_lib.labels import GROUPS, get_group_indices

CHANNEL_STEP = 16
"""Channels stay a multiple of this: a vector of AVX-512 holds 16 floats, fewer would leave lanes idle."""

MOST_PRUNED = 0.9
"""Of a layer's channels at most this share goes."""

N_STEPS = 60
"""The share that goes grows in so many steps; pruning stops at the first that is small enough."""

CONFIG = {"input_size": (3, 64, 64), "pool_size": (4, 4), "first_conv": "conv1.0", "classifier": "fc"}

# timm looks for this name in the module that registers a network.
default_cfgs = generate_default_cfgs({"face_resnet.untrained": CONFIG, "face_resnet_tiny.untrained": CONFIG})


class FaceResNet(ResNet):
    """timm's ResNet with a stem of three 3 x 3 convolutions and no pooling behind it."""

    def __init__(self, **settings: Any):
        super().__init__(block=BasicBlock, stem_type="deep", **settings)  # type: ignore[arg-type]
        self.maxpool = nn.Identity()  # type: ignore[assignment]


@register_model
def face_resnet(pretrained: bool = False, **settings: Any) -> FaceResNet:
    """Return the depth of ResNet-18 at less width: 4.2 million parameters."""
    shape: dict[str, Any] = {"layers": (2, 2, 2, 2), "channels": (64, 128, 192, 256), "stem_width": 32}
    return build_model_with_cfg(FaceResNet, "face_resnet", pretrained, **shape, **settings)


@register_model
def face_resnet_tiny(pretrained: bool = False, **settings: Any) -> FaceResNet:
    """Return half that depth, narrower: 0.8 million parameters, which a megabyte holds in int8."""
    shape: dict[str, Any] = {"layers": (1, 1, 1, 1), "channels": (40, 80, 128, 160), "stem_width": 20}
    return build_model_with_cfg(FaceResNet, "face_resnet_tiny", pretrained, **shape, **settings)


class HierarchicalHead(nn.Module):
    """The paper's head (S7): first positive, negative or neutral, then the emotion within the group.

    Features (N, n_features) become log-probabilities (N, C), log p(group) + log p(emotion | group). They
    stand where a flat head has its logits: their softmax is the probabilities themselves, and their
    cross-entropy is the sum of the two levels' losses. A group of one emotion has nothing to tell apart.
    """

    group_of: torch.Tensor
    outside: torch.Tensor

    def __init__(self, n_features: int, emotions: Sequence[str]):
        super().__init__()
        self.coarse = nn.Linear(n_features, len(GROUPS))
        self.fine = nn.Linear(n_features, len(emotions))
        group_of = torch.tensor(get_group_indices(tuple(emotions)))
        self.register_buffer("group_of", group_of, persistent=False)
        outside = torch.arange(len(GROUPS))[:, None] != group_of
        self.register_buffer("outside", outside.float() * -1e9, persistent=False)
        for layer in (self.coarse, self.fine):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """See the class."""
        fine = self.fine(features)
        totals = torch.logsumexp(fine[:, None, :] + self.outside, dim=2)
        log_groups = F.log_softmax(self.coarse(features), dim=1)
        return fine + (log_groups - totals)[:, self.group_of]


def get_classifier(model: nn.Module) -> Any:
    """Return the last layer of a timm network: `nn.Linear`, or a `HierarchicalHead`."""
    return model.get_classifier()  # type: ignore[operator]


def get_classifier_name(model: nn.Module) -> str:
    """Return the attribute that holds the last layer of a timm network, such as `fc`."""
    return model.pretrained_cfg["classifier"]  # type: ignore[index, return-value]


def attach_hierarchical_head(model: nn.Module, emotions: Sequence[str]) -> None:
    """Replace the classifier of a timm network by a `HierarchicalHead`, in place."""
    head = HierarchicalHead(get_classifier(model).in_features, emotions)
    setattr(model, get_classifier_name(model), head)


def _make_example(model: nn.Module, image_size: int) -> torch.Tensor:
    return torch.zeros(1, 3, image_size, image_size, device=next(model.parameters()).device)


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
    training = model.training
    model.eval()
    pruner = torch_pruning.pruner.BasePruner(
        model,
        _make_example(model, image_size),
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
