"""Open networks in ONNX Runtime, all in the same way: for the app, for measurements and for predictions."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime


def open_session(
    network: Path | bytes,
    threads: int | None = None,
    provider: str = "CPUExecutionProvider",
    keeps_memory: bool = True,
) -> "onnxruntime.InferenceSession":
    """Return a network, given by its file or its content, ready to run. One object serves any thread.

    `threads` are the network's; None: as many as there are cores. With `keeps_memory` the most that a run
    has taken stays with the process. Raises ONNX Runtime's own exceptions, which share no base, for what is
    no network.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    # Threads that went on waiting busily after a run would take the cores from whatever runs next: another
    # network in the same process took twice its time.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.enable_cpu_mem_arena = keeps_memory
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(network, options, providers=[provider])
