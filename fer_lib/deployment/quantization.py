"""Static int8 quantization of an ONNX network: calibrated, accounted for by layer, in part where better.

Weights are int8 per output channel, activations uint8, in the QDQ form (Jacob et al. 2018), which ONNX
Runtime fuses to integer kernels. Ranges come from training faces.
"""

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from tqdm import tqdm

from fer_lib.inference.runtime import INPUT, open_session, run_session

BATCH_SIZE = 32

PLAIN_OPERATIONS = ("Conv", "Gemm", "Add", "Clip", "Relu")
"""What gains from integers. Gates and SiLU (Sigmoid, Mul) and their means stay float: their products have
wide ranges, and a lookup costs no less than the function."""


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

        operations: ONNX names of what may be quantized; None: all that ONNX Runtime can.
        """
        ranges = "-".join(operations or ["all"])  # which tensors are measured depends on them
        with (
            contextlib.redirect_stdout(io.StringIO()),
            _silence_log(),
        ):  # progress, and advice that is followed
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

    def measure_sensitivity(self, work: Path) -> pd.DataFrame:
        """Return what int8 in each layer alone does to the logits: by layer its kind and error.

        error: root mean square of the logits' change, over the standard deviation of the logits.
        work: a folder for files that are not kept.
        """
        expected = run_session(open_session(self.source), self.images, BATCH_SIZE)
        kinds, rows = self.list_layers(), []
        for name, kind in tqdm(kinds.items(), desc="sensitivity", unit="layer", leave=False, disable=None):
            self.quantize(work / "one.onnx", layers=[name])
            found = run_session(open_session(work / "one.onnx"), self.images, BATCH_SIZE)
            error = float(np.sqrt(np.mean((found - expected) ** 2)) / expected.std())
            rows.append({"layer": name, "kind": kind, "error": error})
        return pd.DataFrame(rows).set_index("layer")


@contextlib.contextmanager
def _silence_log() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


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
