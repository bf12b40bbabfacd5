"""Measure what memory a network needs, in a process of its own that loads little else."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_lib.errors import FerError
from fer_lib.inference.recognizer import INPUT
from fer_lib.onnx_session import open_session

BATCHES = (1, 32)
"""Faces shown at a time, here the larger number."""


@dataclass(frozen=True)
class Network:
    """A file that ONNX Runtime opens, and the side in pixels of the faces it is shown."""

    path: Path
    image_size: int


def measure_memory(network: Network) -> float:
    """Return what opening a network and showing it 32 faces adds to the peak memory of a process, in MiB.

    Measured in a process of its own. Raises FerError when that fails.
    """
    command = [sys.executable, "-m", "fer_lib.deployment.memory", str(network.path), str(network.image_size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FerError(
            f"{network.path}: its memory could not be measured: {done.stderr.strip().splitlines()[-1]}"
        )
    return float(done.stdout)


def get_peak() -> float:
    """Return the most memory that this process has held so far, in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # for the other also counts what the parent process used before this one began
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    import resource  # which Windows does not have

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _print_memory(path: str, image_size: str) -> None:
    images = np.zeros((max(BATCHES), 3, int(image_size), int(image_size)), np.float32)
    before = get_peak()
    open_session(Path(path), 1).run(None, {INPUT: images})
    print(get_peak() - before)


if __name__ == "__main__":
    _print_memory(*sys.argv[1:])
