"""Keep what an interrupted training needs to go on to the same result, in one file written atomically."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fer_lib.provenance import get_commit
from fer_lib.training.distributed import get_world_size

STATE_NAME = "state.pt"


@dataclass
class TrainingState:
    """Where a training stands: `step` batches into `epoch` (both from 0)."""

    folder: Path
    fingerprint: str
    git_commit: str
    processes: int
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    finished: bool = False
    best_epoch: int = 0
    best_accuracy: float = -1.0
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    model: dict[str, torch.Tensor] = field(default_factory=dict)
    ema: dict[str, torch.Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    random: dict[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def load_or_create(cls, folder: Path, fingerprint: str) -> "TrainingState":
        """Return the saved state of the run with this fingerprint, or a new one."""
        path = folder / STATE_NAME
        if path.is_file():
            values = torch.load(path, weights_only=True, map_location="cpu")
            if values["fingerprint"] == fingerprint:
                return cls(folder=folder, **values)
        return cls(folder, fingerprint, get_commit(), get_world_size())

    def save(self) -> None:
        """Write the state; a reader sees the old file or the new one, never a part."""
        self.random = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            self.random["cuda"] = torch.cuda.get_rng_state()
        if self.finished:  # only the result is needed from here on
            self.model, self.ema, self.optimizer = {}, {}, {}
        values = {name: value for name, value in vars(self).items() if name != "folder"}
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{STATE_NAME}.partial"
        torch.save(values, partial)
        os.replace(partial, self.folder / STATE_NAME)

    def restore_random(self) -> None:
        """Put torch's random generators (dropout) back to where they were."""
        torch.set_rng_state(self.random["cpu"])
        if "cuda" in self.random:
            torch.cuda.set_rng_state(self.random["cuda"])
