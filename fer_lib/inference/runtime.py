"""Networks in ONNX Runtime, opened one way everywhere: the app, the measurements and the predictions."""

from pathlib import Path

import numpy as np
import onnxruntime

INPUT, OUTPUT = "image", "logits"
"""The names in every file that `export` writes: float32 (N, 3, S, S) to float32 (N, C)."""


def open_session(
    path: Path, threads: int | None = None, provider: str = "CPUExecutionProvider"
) -> onnxruntime.InferenceSession:
    """Return a session; threads: of the network, None for as many as there are cores.

    Raises ONNX Runtime's own exceptions, which share no base, for a file that is no network.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    # Threads that went on waiting busily after a run would take the cores from whatever runs next: the
    # detector took 7 ms instead of 3, and another network in the same process twice its time.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=[provider])


def run_session(session: onnxruntime.InferenceSession, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Return float32 (N, C) logits of float32 (N, 3, S, S) images, a batch at a time."""
    starts = range(0, len(images), batch_size)
    return np.concatenate(
        [session.run(None, {INPUT: np.ascontiguousarray(images[i : i + batch_size])})[0] for i in starts]
    )
