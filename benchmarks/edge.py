"""The whole path of a photograph on one core in little memory, as on a small device.

    python benchmarks/edge.py [--rounds 20] [--sysroot FOLDER]

A drawn photograph is decoded, searched, aligned and classified by each variant of the released model, in a
process of its own (`edge_child.py`), with one core. Limits of its memory fall until one fails: of resident
memory without swap, where there is a cgroup of version 1 that may be written, else of virtual memory
(RLIMIT_AS), which counts what is reserved and never used.

With `--sysroot`, a folder that `arm64_sysroot.sh` makes, every variant also runs in an arm64 Python in QEMU.
Its answers are compared with those here: on the same input, which shows the network, and on the input that
each makes of a face, which shows OpenCV's `resize` too. No time is kept, since it says nothing of a device.

Writes reports/scale/measurements/edge.json.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from demo_faces.clips import draw_scene
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.registry import DEFAULT_MODEL, find_checkpoint, list_exported, list_variants
from fer_lib.models.checkpoints import read_config
from fer_lib.models.preprocessing import Preprocessing, preprocess
from fer_lib.paths import ROOT
from fer_lib.scale.measurements import write_measurements

CHILD = Path(__file__).with_name("edge_child.py")

PHOTOGRAPHS = {"webcam.jpg": (640, 480), "screen.jpg": (1920, 1440), "telephone.jpg": (4000, 3000)}
"""Width and height in pixels."""
N_FACES, N_CROPS = 2, 16

DEVICE_MIB = 512
LIMITS_MIB = (1024, 768, DEVICE_MIB, 384, 256, 192, 128, 96)
ATTEMPTS = 3
"""Processes under each limit: near the least that is enough, some are killed and some are not."""

FEW_ROUNDS = 1
"""Under other limits than the device's, which ask only whether it works."""

QEMU, QEMU_CPU = "qemu-aarch64-static", "neoverse-n1"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def draw_inputs(folder: Path) -> None:
    """Write the photographs, `crops.npy`, uint8 (N_CROPS, S, S) faces, and each network's input of those."""
    for name, (width, height) in PHOTOGRAPHS.items():
        # Enlarged from 640 x 480: to draw the largest takes half a minute.
        picture = cv2.resize(draw_scene(N_FACES)[0], (width, height), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / name), picture[..., ::-1])
    recognizer = Recognizer()
    scenes = (draw_scene(8, 1280, 720, seed=seed)[0] for seed in range(N_CROPS // 8))
    crops = [face.crop for scene in scenes for face in recognizer(scene)]
    np.save(folder / "crops.npy", np.array(crops))
    for variant, config in list_exported(DEFAULT_MODEL)[1].items():
        np.save(folder / variant, preprocess(crops, Preprocessing.from_dict(config["preprocessing"])))


def find_memory_cgroup() -> Path | None:
    """Return the folder of this process's memory cgroup, of version 1; None when none may be written."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    found = [Path(f"/sys/fs/cgroup/memory{path}") for _, kind, path in lines if kind == "memory"]
    return found[0] if found and os.access(found[0], os.W_OK) else None


@contextmanager
def limit_memory(mib: int) -> Iterator[Callable[[], object]]:
    """Yield what a process calls to be held to `mib` of memory and no swap."""
    own = find_memory_cgroup()
    assert own is not None
    group = own / f"fer-edge-{os.getpid()}"
    group.mkdir()
    try:
        for kind in ("memory", "memory.memsw"):  # memory, then memory and swap
            (group / f"{kind}.limit_in_bytes").write_text(str(mib * 2**20))
        yield partial((group / "cgroup.procs").write_text, "0")
    finally:
        group.rmdir()


@contextmanager
def limit_address_space(mib: int) -> Iterator[Callable[[], object]]:
    """Yield what a process calls to be held to `mib` of virtual memory."""
    yield partial(resource.setrlimit, resource.RLIMIT_AS, (mib * 2**20, mib * 2**20))


def run_child(
    folder: Path,
    variant: str,
    photograph: str,
    rounds: int,
    limit: Callable[[], object] | None = None,
    python: Sequence[str] = (sys.executable,),
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run `edge_child.py` on one core; `limit` is called in its process before."""

    def prepare() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        if limit:
            limit()

    arguments = (variant, photograph, str(rounds), str(time.monotonic()))
    return subprocess.run(
        [*python, str(CHILD), *arguments],
        cwd=folder,
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT), **environment},
        preexec_fn=prepare,
        capture_output=True,
        text=True,
        check=False,
    )


def describe_run(done: subprocess.CompletedProcess[str], expected: dict[str, Any]) -> dict[str, Any]:
    """Return whether the run's answers are the expected, and its times and memory; if not, how it ended."""
    if done.returncode:
        return {"worked": False, "exit_status": done.returncode}
    found = json.loads(done.stdout)
    measured = ("startup_s", "first_answer_s", "peak_rss_mib", "photograph_ms", "crop_ms")
    return {"worked": found["faces"] == expected["faces"], **{name: found[name] for name in measured}}


def measure_limits(
    folder: Path, variant: str, photograph: str, rounds: int, expected: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield a row for every limit, from the highest to the first under which an attempt fails.

    The times are of all attempts; the rest is of one that failed, if any did.
    """
    limit_of = limit_memory if find_memory_cgroup() else limit_address_space
    for mib in LIMITS_MIB:
        attempts: list[dict[str, Any]] = []
        for _ in range(ATTEMPTS):
            with limit_of(mib) as limit:
                n = rounds if mib == DEVICE_MIB else FEW_ROUNDS
                attempts.append(describe_run(run_child(folder, variant, photograph, n, limit), expected))
        row = {"variant": variant, "photograph": photograph, "limit_mib": mib}
        row |= min(attempts, key=lambda attempt: attempt["worked"])
        if not row["worked"]:
            yield row
            break
        yield row | {
            name: [each for attempt in attempts for each in attempt[name]]
            for name in ("photograph_ms", "crop_ms")
        }


def compare_arm64(folder: Path, variant: str, sysroot: Path, expected: dict[str, Any]) -> dict[str, Any]:
    """Return how far the answers of an emulated arm64 Python are from those here."""
    python = (QEMU, "-L", str(sysroot), str(sysroot / "usr/bin/python3.11"))
    path = f"{ROOT}:{sysroot / 'site'}"
    done = run_child(
        folder, variant, "webcam.jpg", FEW_ROUNDS, None, python, PYTHONPATH=path, QEMU_CPU=QEMU_CPU
    )
    row = {"variant": variant, "worked": not done.returncode}
    if done.returncode:
        return row | {"exit_status": done.returncode}
    found = json.loads(done.stdout)
    row |= {"machine": found["machine"], "versions": found["versions"], "crops": N_CROPS}
    if expected["logits"]:
        row["input_max_difference_grey_levels"] = found["logits"]["input_max_difference_grey_levels"]
        for kind in ("same_input", "own_input"):
            here, there = (np.array(run["logits"][kind]) for run in (expected, found))
            row[f"{kind}_logits_max_difference"] = float(np.abs(here - there).max())
            row[f"{kind}_same_labels"] = int((here.argmax(axis=1) == there.argmax(axis=1)).sum())
        row["logits_standard_deviation"] = float(here.std())
    boxes = [[face["box"] for face in run["faces"]] for run in (expected, found)]
    row["photograph_same_boxes"] = boxes[0] == boxes[1]
    if len(boxes[0]) == len(boxes[1]):
        shares = [
            [list(face["probabilities"].values()) for face in run["faces"]] for run in (expected, found)
        ]
        row["photograph_probability_max_difference"] = float(np.abs(np.array(shares[0]) - shares[1]).max())
    return row


def describe_emulator() -> str:
    return subprocess.run(
        [QEMU, "--version"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--sysroot", type=lambda path: Path(path).resolve())
    options = parser.parse_args()
    config, rows, arm64 = read_config(find_checkpoint(DEFAULT_MODEL)), [], []
    with TemporaryDirectory() as name:
        folder = Path(name)
        draw_inputs(folder)
        for variant in tqdm(list_variants(config), desc="edge", unit="variant"):
            for photograph in PHOTOGRAPHS:
                done = run_child(folder, variant, photograph, options.rounds)
                if done.returncode:
                    parser.error(f"{variant}: failed without a limit: {done.stderr.strip().splitlines()[-1]}")
                expected = json.loads(done.stdout)
                row = {"variant": variant, "photograph": photograph, "limit_mib": None}
                rows.append(row | describe_run(done, expected))
                rows += measure_limits(folder, variant, photograph, options.rounds, expected)
                if options.sysroot and photograph == "webcam.jpg":
                    arm64.append(compare_arm64(folder, variant, options.sysroot, expected))
    found = {
        "model": DEFAULT_MODEL,
        "default_variant": config["default"],
        "limit": "memory cgroup" if find_memory_cgroup() else "address space",
        "device_mib": DEVICE_MIB,
        "faces_per_photograph": N_FACES,
        "photograph_px": PHOTOGRAPHS,
        "runs": rows,
        "emulated_arm64": arm64,
        "emulator": f"{describe_emulator()}, {QEMU_CPU}" if options.sysroot else None,
    }
    print(write_measurements("edge", found))


if __name__ == "__main__":
    main()
