"""Read a network's weights back from the ONNX file that `deployment.export` made of it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx.numpy_helper import to_array
from torch import nn

from fer_lib.errors import ModelError

FUSED = ("ConvBnFusion_W_", "ConvBnFusion_BN_B_")
"""What ONNX Runtime puts before the names of a convolution's weight and bias that hold a batch norm."""


def read_onnx_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the float32 tensors of an export by the names that they have in PyTorch.

    Those in half precision are widened, those in int8 are multiplied by their scales. Raises ModelError when
    the file is missing or damaged.
    """
    try:
        graph = onnx.load(path).graph
    except Exception as error:  # protobuf's own has no base that onnx shows
        raise ModelError(f"{path}: not a network in ONNX: {error!r}; export it again") from None
    values = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in values:
            values[node.output[0]] = values[node.input[0]]
        if node.op_type == "DequantizeLinear" and node.input[0] in values:
            quantized, scale, zero_point = (values[name] for name in node.input)
            # One scale for all, or one per output channel, the first axis.
            shape = (-1, *[1] * (quantized.ndim - 1)) if scale.ndim else ()
            integers = quantized.astype(np.int32) - zero_point.astype(np.int32).reshape(shape)
            values[node.input[0].removesuffix("_quantized")] = integers * scale.reshape(shape)
    for prefix in FUSED:
        values |= {name.removeprefix(prefix): value for name, value in values.items()}
    return {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}


def complete_state(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return those of `tensors` that are of `model`'s state, and what a fused batch norm has left to say.

    Its scale is in the weights before it, so that it adds its bias and changes nothing else.
    """
    state = {name: tensors[name] for name in model.state_dict() if name in tensors}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            state[f"{name}.num_batches_tracked"] = torch.tensor(0)
            if f"{name}.running_mean" not in state:
                ones = torch.ones(module.num_features)
                state |= {f"{name}.weight": ones, f"{name}.running_mean": torch.zeros_like(ones)}
                state[f"{name}.running_var"] = ones - module.eps
    return state
