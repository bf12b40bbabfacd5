"""From a trained network to an ONNX file that ONNX Runtime runs, checked against PyTorch."""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnxscript import optimizer

from fer_lib.errors import ModelError
from fer_lib.inference.runtime import INPUT, OUTPUT, open_session
from fer_lib.models.build import Checkpoint

OPSET = 18
PARITY = 1e-4
"""Largest difference in logits between PyTorch and ONNX Runtime that an export may have."""


def scale_logits(model: torch.nn.Module, temperature: float) -> None:
    """Divide the logits by `temperature` for good, in the last layer, which must be linear; in place."""
    classifier = model.get_classifier()
    with torch.no_grad():
        classifier.weight.div_(temperature)
        classifier.bias.div_(temperature)


def round_weights(model: torch.nn.Module) -> None:
    """Round every matrix to float16, in place.

    Vectors (biases, batch norm) keep single precision: they are small, and their range is wide.
    """
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.half()


def export_onnx(checkpoint: Checkpoint, path: Path, half: bool = True) -> float:
    """Write the network as ONNX, input `image` float32 (N, 3, S, S) to `logits` (N, C), any N.

    half: store in half precision what it holds exactly; quantization needs single precision.
    Returns the largest difference in logits to PyTorch on random input. Raises ModelError over `PARITY`.
    """
    size = checkpoint.preprocessing.image_size
    model = checkpoint.model.to(memory_format=torch.contiguous_format)
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    program = torch.onnx.export(
        model,
        (images,),
        dynamo=True,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim("n")},),
        opset_version=OPSET,
        optimize=False,
        verbose=False,
    )
    # The exporter's own optimiser would multiply batch norms into weights, which would then need single
    # precision on disk. ONNX Runtime does so when it opens the file, and runs the same operations.
    optimizer.inline(program.model)
    optimizer.fold_constants(program.model)
    optimizer.remove_unused_nodes(program.model)
    exported = program.model_proto
    if half:
        _store_half(exported)
    for node in exported.graph.node:
        node.ClearField("metadata_props")  # the exporter's stack traces name folders of this machine
    onnx.checker.check_model(exported, full_check=True)
    path.write_bytes(exported.SerializeToString())
    session = open_session(path)
    with torch.inference_mode():
        expected = model(images).numpy()
    difference = float(np.abs(session.run(None, {INPUT: images.numpy()})[0] - expected).max())
    if difference > PARITY:
        raise ModelError(
            f"{path}: logits differ by {difference:.2g} from PyTorch's, at most {PARITY:g} is allowed"
        )
    return difference


def _store_half(model: onnx.ModelProto) -> None:
    """Keep every matrix that half precision holds exactly as such: half the bytes, not one bit lost."""
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.ndim < 2:
            continue
        half = values.astype(np.float16)
        if np.array_equal(half, values):
            name = tensor.name
            tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
            widen = onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT)
            model.graph.node.insert(0, widen)
