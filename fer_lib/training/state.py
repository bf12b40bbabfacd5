"""Keep what an interrupted training needs to go on to the same result, in one file written atomically."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import albumentations
import numpy as np
import timm
import torch

from fer_lib.models.weights import InitialWeights
from fer_lib.params import Params
from fer_lib.provenance import get_commit, hash_code, hash_values

STATE_NAME = "state.pt"
PACKAGE = Path(__file__).parents[1]
CODE = [PACKAGE / name for name in ("training", "models", "data/packed.py", "labels.py")]
"""All code that decides the trained weights; a change in any of it makes an older state void."""


def compute_fingerprint(
    data_hash: str,
    targets: np.ndarray,
    params: Params,
    initial: InitialWeights,
    device: torch.device,
    precision: str,
    teacher_hash: str | None = None,
) -> str:
    """Return a hash of all that decides the result: data, start, parameters, code, libraries, device.

    Parameters
    ----------
    targets
        Float (N, C), what the faces are trained towards; a teacher's file may change under its name.
    precision
        What it computes in; `auto` is another on another processor.
    teacher_hash
        Of the weights of a teacher that is a network.
    """
    facts = {
        "data": data_hash,
        "targets": hashlib.sha256(np.ascontiguousarray(targets).tobytes()).hexdigest(),
        "initial": initial.to_dict(),
        "teacher": teacher_hash,
        "params": params.model_dump(mode="json", include={"training", "augmentation"}),
        "code": hash_code(CODE),
        "libraries": [str(library.__version__) for library in (albumentations, timm, torch)],
        "device": device.type,
        "precision": precision,
    }
    return hash_values(facts)


@dataclass
class TrainingState:
    """Where a training stands: `step` batches into `epoch` (both from 0)."""

    folder: Path
    fingerprint: str
    git_commit: str
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
        return cls(folder, fingerprint, get_commit())

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
