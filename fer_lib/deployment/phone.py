"""Export a model for telephones: LiteRT, ExecuTorch and Core ML. Needs the extra `phone`."""

import logging
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import coremltools
import litert_torch
import torch
from ai_edge_litert.interpreter import Interpreter
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime

from fer_lib.deployment.export import PARITY
from fer_lib.errors import ModelError
from fer_lib.inference.recognizer import INPUT, OUTPUT
from fer_lib.inference.registry import list_exported
from fer_lib.models.build import load_exported
from fer_lib.models.preprocessing import Preprocessing

N_IMAGES = 4
"""Random images on which an export is compared with PyTorch."""

Run = Callable[[torch.Tensor], torch.Tensor]


def export_phone(model: str, folder: str | Path) -> str:
    """Write `<release>_<variant>` as .tflite, .pte and .mlpackage, for every variant that is one network.

    Each takes float32 (1, 3, S, S), as `models.preprocessing.preprocess` returns it, and returns float32
    (1, C) logits, whose softmax is the calibrated probabilities; ONNX names and a batch of any size are not
    kept. Weights and activations are in single precision: of an int8 variant the weights are as in its file,
    and activations are not rounded, so that its logits are near those in ONNX Runtime, not the same.

    LiteRT and ExecuTorch run each file here, and PyTorch must agree. Core ML runs on Apple's systems alone:
    its files are converted and not run.

    Parameters
    ----------
    model
        As of `Recognizer`, but exported.
    folder
        Where the files go, created if missing.

    Returns
    -------
    str
        A line for each file: its size and what was checked.

    Raises
    ------
    ModelError
        For a model that is missing or was not exported, or an export that differs from PyTorch by more than
        `export.PARITY`; that file is not written.
    """
    source, variants = list_exported(model)
    folder, lines = Path(folder), []
    folder.mkdir(parents=True, exist_ok=True)
    for variant, config in variants.items():
        network = load_exported(source / config["file"], config).model
        network.to(memory_format=torch.contiguous_format)  # Core ML converts no other order
        size = Preprocessing.from_dict(config["preprocessing"]).image_size
        images = torch.randn(N_IMAGES, 3, size, size, generator=torch.Generator().manual_seed(0))
        for suffix, export in FORMATS.items():
            with TemporaryDirectory(dir=folder, prefix=".") as work:
                path = Path(work) / f"{source.name}_{variant}{suffix}"
                run = _export_quietly(export, network, images[:1], path)
                checked = _check_parity(path, network, images, run) if run else NOT_RUN
                lines.append(f"{path.name}: {_measure_size(path) / 1e6:.1f} MB, {checked}")
                shutil.rmtree(folder / path.name, ignore_errors=True)  # an older .mlpackage is a folder
                path.replace(folder / path.name)
    return "\n".join(lines)


def _export_litert(network: torch.nn.Module, image: torch.Tensor, path: Path) -> Run:
    litert_torch.convert(network, (image,)).export(str(path))
    runner = Interpreter(str(path), num_threads=1).get_signature_runner()
    return lambda image: torch.from_numpy(runner(args_0=image.numpy())["output_0"])


def _export_executorch(network: torch.nn.Module, image: torch.Tensor, path: Path) -> Run:
    program = torch.export.export(network, (image,))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)
    method = Runtime.get().load_program(path).load_method("forward")
    return lambda image: method.execute([image])[0].clone()


def _export_coreml(network: torch.nn.Module, image: torch.Tensor, path: Path) -> None:
    coremltools.convert(
        torch.export.export(network, (image,)).run_decompositions({}),
        inputs=[coremltools.TensorType(INPUT, image.shape)],
        outputs=[coremltools.TensorType(OUTPUT)],
        minimum_deployment_target=coremltools.target.iOS15,
        compute_precision=coremltools.precision.FLOAT32,
    ).save(str(path))


FORMATS = {".tflite": _export_litert, ".pte": _export_executorch, ".mlpackage": _export_coreml}
NOT_RUN = "converted and not run: Core ML runs on Apple's systems alone"


def _export_quietly(
    export: Callable[[torch.nn.Module, torch.Tensor, Path], Run | None],
    network: torch.nn.Module,
    image: torch.Tensor,
    path: Path,
) -> Run | None:
    logging.disable(logging.WARNING)  # they tell of their progress and of versions they were not tested with
    try:
        with redirect_stdout(StringIO()):
            return export(network, image, path)
    finally:
        logging.disable(logging.NOTSET)


def _check_parity(path: Path, network: torch.nn.Module, images: torch.Tensor, run: Run) -> str:
    with torch.inference_mode():
        expected = network(images)
    found = torch.cat([run(images[i : i + 1].clone()) for i in range(len(images))])
    difference = float((found - expected).abs().max())
    if difference > PARITY:
        raise ModelError(
            f"{path.name}: logits differ by {difference:.2g} from PyTorch's, at most {PARITY:g} is allowed"
        )
    return f"logits within {difference:.1g} of PyTorch's"


def _measure_size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
