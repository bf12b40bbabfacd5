"""Create networks; save and load them as checkpoints, folders of `model.safetensors` and `config.json`."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from fer_lib.errors import ModelError
from fer_lib.models.checkpoints import CONFIG_NAME, WEIGHTS_NAME, read_config
from fer_lib.models.networks import attach_hierarchical_head, get_classifier, match_shapes
from fer_lib.models.onnx_weights import complete_state, read_onnx_weights
from fer_lib.models.preprocessing import Preprocessing


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: the network in eval mode, and its config with all that made it."""

    model: nn.Module
    config: dict[str, Any]

    @property
    def emotions(self) -> tuple[str, ...]:
        """Class names in the order of the network's outputs."""
        return tuple(self.config["emotions"])

    @property
    def preprocessing(self) -> Preprocessing:
        """What the network expects of its input."""
        return Preprocessing.from_dict(self.config["preprocessing"])


def create_model(architecture: str, n_classes: int, dropout: float = 0.0) -> nn.Module:
    """Return a timm network with random weights: float32 (N, 3, H, W) to logits (N, n_classes).

    `architecture` is a name that timm knows, or one of `models.networks`; `dropout` stands before the
    classifier. Raises ModelError for an unknown name, with those that come close.
    """
    if not timm.is_model(architecture):
        close = ", ".join(timm.list_models(f"*{architecture.split('.')[0][:9]}*")[:5])
        raise ModelError(f"training.architecture: timm has no {architecture!r}; close: {close or 'none'}")
    model = timm.create_model(architecture, num_classes=n_classes, drop_rate=dropout)
    # timm scales the classifier for 1,000 classes; for seven its logits would start far from zero.
    classifier = get_classifier(model)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)
    return model


def save_checkpoint(folder: Path, model: nn.Module, config: dict[str, Any]) -> None:
    """Write a checkpoint folder, replacing an older one as a whole.

    `config` must hold `architecture`, `emotions` and `preprocessing`; it should hold whatever else says where
    the weights came from (params, data hash, Git commit, metrics).
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, partial / WEIGHTS_NAME)
    (partial / CONFIG_NAME).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def load_checkpoint(folder: Path, device: str | torch.device = "cpu") -> Checkpoint:
    """Load a checkpoint folder. Raises ModelError for a file that is missing, damaged or fits no other."""
    config = read_config(folder)
    if not (folder / WEIGHTS_NAME).is_file():
        raise ModelError(
            f"{folder}: expected a checkpoint folder, {WEIGHTS_NAME} is missing; train one first"
        )
    return _load(folder / WEIGHTS_NAME, config, device)


def load_exported(path: Path, config: dict[str, Any]) -> Checkpoint:
    """Load an ONNX file that `deployment.export` wrote of a checkpoint with this config, in PyTorch.

    Of int8, the weights are as they are in the file, and activations are not rounded. Raises ModelError for a
    file that is missing, damaged or of another network.
    """
    return _load(path, config, "cpu")


def _load(path: Path, config: dict[str, Any], device: str | torch.device) -> Checkpoint:
    try:
        model = create_model(config["architecture"], len(config["emotions"]))
        if config.get("head") == "hierarchical":
            attach_hierarchical_head(model, config["emotions"])
        tensors = load_file(path) if path.name == WEIGHTS_NAME else read_onnx_weights(path)
        if config.get("pruned"):
            match_shapes(model, tensors)
        if path.name != WEIGHTS_NAME:
            tensors = complete_state(model, tensors)
        model.load_state_dict(tensors)
    except (SafetensorError, OSError, RuntimeError) as error:
        fault = f"does not fit {config['architecture']}: {str(error).splitlines()[0]}"
        raise ModelError(f"{path}: {fault}") from None
    model.eval().to(device).to(memory_format=torch.channels_last)
    return Checkpoint(model, config)
