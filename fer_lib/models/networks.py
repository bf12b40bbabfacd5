"""The hierarchical head of the paper (S7): first positive / negative / neutral, then the emotion within."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fer_lib.labels import GROUPS, get_group_indices


class HierarchicalHead(nn.Module):
    """Features (N, n_features) to log-probabilities (N, C), log p(group) + log p(emotion | group).

    They stand where a flat head has its logits: their softmax is the probabilities themselves, and their
    cross-entropy is the sum of the two levels' losses. A group of one emotion has nothing to tell apart.
    """

    def __init__(self, n_features: int, emotions: Sequence[str]):
        super().__init__()
        self.coarse = nn.Linear(n_features, len(GROUPS))
        self.fine = nn.Linear(n_features, len(emotions))
        group_of = torch.tensor(get_group_indices(emotions))
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


def attach_hierarchical_head(model: nn.Module, emotions: Sequence[str]) -> None:
    """Replace the classifier of a timm network by a `HierarchicalHead`, in place."""
    head = HierarchicalHead(model.get_classifier().in_features, emotions)
    setattr(model, model.pretrained_cfg["classifier"], head)
