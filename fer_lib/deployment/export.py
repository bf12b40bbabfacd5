"""Export a trained network to ONNX, checked against PyTorch, and quantize it to int8.

Quantization is static: weights are int8 per output channel, activations uint8, in the QDQ form (Jacob et al.
2018), which ONNX Runtime fuses to integer kernels. Ranges come from training faces.
"""

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import torch
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxscript import optimizer
from tqdm import tqdm

from fer_lib.errors import ModelError
from fer_lib.inference.recognizer import INPUT, OUTPUT, run_session
from fer_lib.models.build import Checkpoint
from fer_lib.models.networks import get_classifier
from fer_lib.onnx_session import open_session

OPSET = 18
PARITY = 1e-4
"""Largest difference in logits between PyTorch and ONNX Runtime that an export may have."""

BATCH_SIZE = 32

PLAIN_OPERATIONS = ("Conv", "Gemm", "Add", "Clip", "Relu")
"""What gains from integers. Gates and SiLU (Sigmoid, Mul) and their means stay float: their products have
wide ranges, and a lookup costs no less than the function."""


def scale_logits(model: torch.nn.Module, temperature: float) -> None:
    """Divide the logits by `temperature` for good, in the last layer, which must be linear; in place."""
    with torch.no_grad():
        for parameter in get_classifier(model).parameters():
            parameter.div_(temperature)


def adjust_logits(model: torch.nn.Module, tau: float, shares: np.ndarray) -> None:
    """Take tau times the log of each class's share in training off its logit, in the last layer; in place.

    Logit adjustment (Menon et al. 2021, eq. 9): with tau 1 it favours no class for being frequent.

    shares: float (C,), summing to 1.
    """
    with torch.no_grad():
        get_classifier(model).bias.sub_(tau * torch.log(torch.from_numpy(shares)))


def divide_logits(path: Path, temperature: float) -> None:
    """Divide the logits of an ONNX file by `temperature` for good: its last layer's weights and scales.

    The integers of an int8 network stay as they are.
    """
    model = onnx.load(path)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    made_by = {name: node for node in model.graph.node for name in node.output}
    last = next(node for node in reversed(model.graph.node) if node.op_type == "Gemm")
    names = {
        made_by[name].input[1] if name in made_by else name for name in last.input[1:]
    }  # the scale, where it is quantized
    names |= {
        node.input[1]
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] == last.output[0]
    }
    for name in names:
        values = onnx.numpy_helper.to_array(tensors[name])
        divided = (values / temperature).astype(values.dtype)
        tensors[name].CopyFrom(onnx.numpy_helper.from_array(divided, name))
    path.write_bytes(model.SerializeToString())


def round_weights(model: torch.nn.Module) -> None:
    """Round every matrix to float16, in place.

    Vectors (biases, batch norm) keep single precision: they are small, and their range is wide.
    """
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.half()


def describe_export() -> dict[str, object]:
    """Return the operator set and the versions that an export is made with, for a model's config."""
    return {"opset": OPSET, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}


def export_onnx(checkpoint: Checkpoint, path: Path, half: bool = True) -> float:
    """Write the network as ONNX, input `image` float32 (N, 3, S, S) to `logits` (N, C), any N.

    half: store in half precision what it holds exactly; quantization needs single precision.

    Returns the largest difference in logits to PyTorch on random input. Raises ModelError when that is over
    `PARITY`.
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
    assert program is not None
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
    with torch.inference_mode():
        expected = model(images).numpy()
    found = run_session(open_session(path), images.numpy(), len(images))
    difference = float(np.abs(found - expected).max())
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


@dataclass(frozen=True)
class Quantizer:
    """Quantizes one network again and again; its ranges are measured once.

    source: the float32 network, prepared by `prepare`.   images: float32 (N, 3, S, S) faces to calibrate on.
    percentile: the share of activations, in percent, that a range covers.
    """

    source: Path
    images: np.ndarray
    percentile: float

    @classmethod
    def prepare(cls, network: Path, images: np.ndarray, percentile: float) -> "Quantizer":
        """Fold batch norms into convolutions and infer shapes, beside `network`."""
        source = network.with_suffix(".folded.onnx")
        quant_pre_process(network, source, skip_symbolic_shape=True)
        return cls(source, images, percentile)

    def list_layers(self) -> dict[str, str]:
        """Return name to kind of every layer that holds weights, in order.

        Kinds: `stem`, the first; `depthwise`; `pointwise`, 1 x 1; `conv`; `classifier`.
        """
        graph = onnx.load(self.source).graph
        nodes = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
        shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        kinds = {node.name: _name_kind(node, shapes[node.input[1]]) for node in nodes}
        return kinds | {nodes[0].name: "stem"}

    def quantize(
        self,
        path: Path,
        layers: Sequence[str] | None = None,
        excluded: Sequence[str] = (),
        operations: Sequence[str] | None = None,
    ) -> None:
        """Write the network to `path`, its `layers` in int8 (None: all) but the `excluded`.

        `operations` are ONNX names of what may be quantized; None: all that ONNX Runtime can.
        """
        ranges = "-".join(operations or ["all"])  # which tensors are measured depends on them
        logging.disable(logging.WARNING)  # it logs advice that is followed, and prints its progress
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                quantize_static(
                    self.source,
                    path,
                    _Reader(self.images),
                    per_channel=True,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    nodes_to_quantize=layers,
                    nodes_to_exclude=list(excluded),
                    op_types_to_quantize=operations,
                    calibrate_method=CalibrationMethod.Percentile,
                    calibration_cache_path=self.source.with_suffix(f".{ranges}.json"),
                    extra_options={"CalibPercentile": self.percentile},
                )
        finally:
            logging.disable(logging.NOTSET)

    def measure_sensitivity(self, work: Path) -> pd.DataFrame:
        """Return how far int8 in each layer alone moves the logits, by layer: `kind` and `error`.

        `work` is a folder for files that are not kept; see `measure_error`.
        """
        kinds, rows = self.list_layers(), []
        for name, kind in tqdm(kinds.items(), desc="sensitivity", unit="layer", leave=False, disable=None):
            self.quantize(work / "one.onnx", layers=[name])
            rows.append({"layer": name, "kind": kind, "error": self.measure_error(work / "one.onnx")})
        return pd.DataFrame(rows).set_index("layer")

    def measure_error(self, path: Path) -> float:
        """Return the root mean square by which the logits of `path` differ, over their standard deviation."""
        found = run_session(open_session(path), self.images, BATCH_SIZE)
        return float(np.sqrt(np.mean((found - self._expected) ** 2)) / self._expected.std())

    @cached_property
    def _expected(self) -> np.ndarray:
        return run_session(open_session(self.source), self.images, BATCH_SIZE)


def _name_kind(node: onnx.NodeProto, weight_shape: tuple[int, ...]) -> str:
    if node.op_type == "Gemm":
        return "classifier"
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    if groups > 1:
        return "depthwise"
    return "pointwise" if weight_shape[2:] == (1, 1) else "conv"


class _Reader(CalibrationDataReader):
    """Hands ONNX Runtime the faces to calibrate on, a batch at a time."""

    def __init__(self, images: np.ndarray):
        starts = range(0, len(images), BATCH_SIZE)
        self._batches: Iterator = iter([{INPUT: images[i : i + BATCH_SIZE]} for i in starts])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)
