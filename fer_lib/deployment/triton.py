"""Write a model for the NVIDIA Triton Inference Server, which serves it over HTTP and gRPC."""

import json
import shutil
from pathlib import Path

from fer_lib.files import write_atomically
from fer_lib.inference.recognizer import INPUT, OUTPUT
from fer_lib.inference.registry import list_exported

MAX_BATCH_SIZE = 64
"""Faces that are classified at once, at most: those that wait while a batch is computed make the next."""

CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: {max_batch_size}
input [ {{ name: "{input}", data_type: TYPE_FP32, dims: [ 3, {size}, {size} ] }} ]
output [ {{ name: "{output}", data_type: TYPE_FP32, dims: [ {n_classes} ], label_filename: "labels.txt" }} ]
dynamic_batching {{ }}
instance_group [ {{ kind: KIND_CPU, count: 1 }} ]
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
# Not Triton's: what a client does with a face before, and with its probability after.
parameters {{ key: "fer_preprocessing" value: {{ string_value: "{preprocessing}" }} }}
parameters {{ key: "fer_abstain_below" value: {{ string_value: "{abstain_below}" }} }}
"""


def export_triton(model: str, folder: str | Path) -> Path:
    """Write a Triton model repository: `<release>_<variant>` for every variant that is one network.

    Each takes float32 (N, 3, S, S) `image`, as `models.preprocessing.preprocess` returns them, and returns
    float32 (N, C) `logits`, whose softmax is the calibrated probabilities. A soft vote is left to clients.

    Parameters
    ----------
    model
        As of `Recognizer`, but exported.
    folder
        The repository, to which others may have written too.

    Raises
    ------
    ModelError
        For a model that is missing or was not exported.
    """
    (source, variants), folder = list_exported(model), Path(folder)
    for variant, described in variants.items():
        name = f"{source.name}_{variant}".replace("-", "_")
        preprocessing = json.dumps(described["preprocessing"]).replace('"', '\\"')
        text = CONFIG.format(
            name=name,
            max_batch_size=MAX_BATCH_SIZE,
            input=INPUT,
            output=OUTPUT,
            size=described["preprocessing"]["image_size"],
            n_classes=len(described["emotions"]),
            preprocessing=preprocessing,
            abstain_below=described["abstain_below"],
        )
        write_atomically(folder / name / "config.pbtxt", text.encode())
        write_atomically(
            folder / name / "labels.txt",
            "".join(f"{emotion}\n" for emotion in described["emotions"]).encode(),
        )
        (folder / name / "1").mkdir(exist_ok=True)
        shutil.copyfile(source / described["file"], folder / name / "1" / "model.onnx")
    return folder
