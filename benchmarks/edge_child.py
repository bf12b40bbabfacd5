"""Run a model on a photograph, again and again; print times and answers as JSON. `edge.py` limits it.

    python benchmarks/edge_child.py VARIANT PHOTOGRAPH ROUNDS STARTED

It needs NumPy, OpenCV, ONNX Runtime and Pillow alone. In the working folder are `crops.npy`, uint8 (N, S, S)
faces, and `<variant>.npy`, the network's input that another machine made of them. STARTED is the time of the
monotonic clock, in seconds, when the process was started.
"""

import json
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

from fer_lib.deployment.memory import get_peak
from fer_lib.inference.recognizer import Recognizer, run_session
from fer_lib.inference.registry import list_variants
from fer_lib.models.preprocessing import Preprocessing, preprocess
from fer_lib.onnx_session import open_session

PACKAGES = ("numpy", "onnxruntime", "opencv-python-headless", "pillow")


def time_calls(call: Callable[[], object], rounds: int) -> list[float]:
    """Return the milliseconds that each call took."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - began))
    return times


def compute_logits(recognizer: Recognizer, crops: np.ndarray) -> dict[str, Any] | None:
    """Return the logits of crops, from the input made here and from that made elsewhere, and how far those
    inputs differ; None for a vote, which has no logits.
    """
    variant = list_variants(recognizer.config)[recognizer.variant]
    if "file" not in variant:
        return None
    preprocessing = Preprocessing.from_dict(variant["preprocessing"])
    own, given = preprocess(list(crops), preprocessing), np.load(f"{recognizer.variant}.npy")
    session = open_session(recognizer.folder / variant["file"], 1)
    return {
        "own_input": run_session(session, own, 1).tolist(),
        "same_input": run_session(session, given, 1).tolist(),
        "input_max_difference_grey_levels": 255 * float(np.abs(own - given).max()) * max(preprocessing.std),
    }


def main(variant: str, photograph: str, rounds: str, started: str) -> None:
    recognizer, crops = Recognizer(variant=variant, threads=1), np.load("crops.npy")
    ready = time.monotonic() - float(started)
    faces = recognizer(photograph)
    answered = time.monotonic() - float(started)
    recognizer.compute_probabilities(crops[:1])
    result = {
        "startup_s": ready,
        "first_answer_s": answered,
        "photograph_ms": time_calls(lambda: recognizer(photograph), int(rounds)),
        "crop_ms": time_calls(lambda: recognizer.compute_probabilities(crops[:1]), int(rounds)),
        "peak_rss_mib": get_peak(),
        "faces": [{"box": face.box, "probabilities": face.probabilities} for face in faces],
        "logits": compute_logits(recognizer, crops),
        "machine": platform.machine(),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
