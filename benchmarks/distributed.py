"""Time training steps in one process and in two, a thread each, and how long gradients take to be averaged.

    python benchmarks/distributed.py [--rounds 3]

The step is the library's own, on random images. Writes reports/scale/measurements/distributed.json.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fer_lib.models.build import create_model
from fer_lib.params import load_params
from fer_lib.scale.measurements import write_measurements
from fer_lib.training.distributed import get_rank, get_world_size, join_processes, wrap_ddp
from fer_lib.training.optim import build_loss
from fer_lib.training.steps import train_on_batch

POINTS = [(size, batch) for size in (48, 64) for batch in (16, 32, 64)]
"""Pixels, and images of a step in all processes together."""

PROCESSES, WARM_UP, STEPS, N_CLASSES = (1, 2), 3, 10, 7


def time_steps(path: Path) -> None:
    """Write the median seconds of a step at each of POINTS. Every process runs this."""
    torch.set_num_threads(1)
    params, found = load_params("demo").training, []
    with join_processes():
        torch.manual_seed(0)
        network = create_model("tf_efficientnet_b0", N_CLASSES, 0.0).train()
        model = wrap_ddp(network.to(memory_format=torch.channels_last))
        optimizer = torch.optim.AdamW(model.parameters(), lr=params.lr)
        loss = build_loss(params, np.eye(N_CLASSES))
        for size, batch in POINTS:
            own = batch // get_world_size()
            images = torch.randn(own, 3, size, size).contiguous(memory_format=torch.channels_last)
            targets, seconds = torch.eye(N_CLASSES)[torch.arange(own) % N_CLASSES], []
            for _ in range(WARM_UP + STEPS):
                began = time.perf_counter()
                train_on_batch(model, images, targets, loss, optimizer, torch.device("cpu"), None)
                seconds.append(time.perf_counter() - began)
            found.append(
                {"image_size": size, "batch": batch, "seconds": statistics.median(seconds[WARM_UP:])}
            )
    if not get_rank():
        n_parameters = sum(p.numel() for p in network.parameters())
        path.write_text(json.dumps({"n_parameters": n_parameters, "points": found}))


def run(processes: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "found.json")
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        subprocess.run([sys.executable, *launcher, __file__, "--steps", str(path)], check=True)
        return dict(json.loads(path.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps:
        time_steps(options.steps)
        return
    points = []
    for number in range(options.rounds):
        for processes in PROCESSES:
            found = run(processes)
            points += [{"round": number, "processes": processes, **point} for point in found["points"]]
    print(write_measurements("distributed", {"n_parameters": found["n_parameters"], "points": points}))


if __name__ == "__main__":
    main()
