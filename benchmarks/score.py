"""Measure `fer score` on this machine: workers, the bare network, memory, what an image takes, and kills.

    .venv-scale/bin/python benchmarks/score.py [--dataset fer2013] [--crops 100000] [--scenes 2000]

Crops are the faces of a packed data set, as often as it takes; scenes are drawn photographs with one to four
faces. Runs with one and two workers alternate. Throughput is taken from the times at which tables are
written, from each worker's first on; what is before is the start of Ray and of the workers, `startup_s`.
Writes reports/scale/measurements/score.json.
"""

import argparse
import io
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from demo_faces.clips import draw_scene
from fer_lib.data.images import decode_image
from fer_lib.data.packed import load_packed
from fer_lib.inference.recognizer import BATCH_SIZE, INPUT, LARGEST_CROP, Recognizer
from fer_lib.inference.registry import list_variants
from fer_lib.onnx_session import open_session
from fer_lib.provenance import get_commit
from fer_lib.scale.measurements import read_measurements, write_measurements
from fer_lib.scale.sources import list_parts

WORKERS = (1, 2)
WORKS = {"crops": "balanced", "crops_b0": "float", "scenes": "balanced"}
"""What is scored by which variant: the default, and on crops the paper's EfficientNet-B0 as well."""

B0_SHARE = 6
"""Of the crops, B0 scores a sixth: it takes three times as long."""

DRAWN = 200
"""Scenes that are drawn; the others are these, mirrored or darkened, for drawing takes a second."""

BARE_SECONDS, N_TIMED, N_FILES = 10, 300, 20_000
KILLED = ("worker", "driver", "worker", "driver", "worker", "driver")
"""Which process is killed, each at a random moment."""


def write_crops(path: Path, dataset: str, n: int) -> None:
    """Write a table of `n` PNG files in bytes: the faces of a packed data set, in turn."""
    faces = load_packed(dataset).faces
    images = [encode(np.asarray(faces[row]), "png") for row in range(min(n, len(faces)))]
    repeated = pa.array([images[row % len(images)] for row in range(n)], pa.binary())
    pq.write_table(pa.table({"image": repeated}), path, row_group_size=5_000)


def write_scenes(path: Path, n: int) -> None:
    """Write a table of `n` JPEG files in bytes: drawn photographs with one to four faces."""
    drawn = [draw_scene(1 + number % 4, seed=number)[0] for number in range(min(n, DRAWN))]
    images = []
    for number in range(n):
        turn, scene = divmod(number, len(drawn))
        pixels = drawn[scene][:, ::-1] if turn % 2 else drawn[scene]
        images.append(encode((pixels * (1 - 0.05 * (turn // 2 % 8))).astype(np.uint8), "jpeg"))
    pq.write_table(pa.table({"image": pa.array(images, pa.binary())}), path, row_group_size=1_000)


def encode(pixels: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.squeeze(pixels)).save(file, kind)
    return file.getvalue()


def start(table: Path, output: Path, variant: str, workers: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "fer_lib", "score", str(table), "--output", str(output)]
    options = ["--variant", variant, "--workers", str(workers)]
    return subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def time_run(table: Path, variant: str, workers: int) -> dict[str, Any]:
    """Return the seconds of a whole run, those before its first table, and its throughput from there on; with
    the most memory that its processes held.
    """
    with tempfile.TemporaryDirectory() as folder:
        began = time.time()
        driver = start(table, Path(folder, "output"), variant, workers)
        peak = {"driver_mib": 0.0, "all_mib": 0.0}
        while driver.poll() is None:
            sizes = measure_family(driver.pid)
            peak = {name: max(peak[name], sizes[name]) for name in peak}
            time.sleep(2)
        if driver.returncode:
            raise SystemExit("error: `fer score` failed; run it by hand")
        seconds, tables = time.time() - began, list(Path(folder).glob("output/shard=*/*.parquet"))
        written = sorted((path.stat().st_mtime, count_images(path)) for path in tables)
        (first, _), later = written[workers - 1], written[workers:]  # each worker's first
        return {
            "seconds": seconds,
            "startup_s": written[0][0] - began,
            "per_second": sum(n for _, n in later) / (later[-1][0] - first),
            "output_bytes": sum(path.stat().st_size for path in tables),
            **peak,
        }


def count_images(table: Path) -> int:
    return pd.read_parquet(table, columns=["source"])["source"].nunique()


def measure_family(pid: int) -> dict[str, float]:
    """Return the memory of a process, and of it with all its children, in MiB, shared pages in parts."""
    with suppress(psutil.Error):  # one that ends meanwhile
        root = psutil.Process(pid)
        family = (root, *root.children(recursive=True))
        sizes = [process.memory_full_info().pss / 2**20 for process in family]
        return {"driver_mib": sizes[0], "all_mib": sum(sizes)}
    return {"driver_mib": 0.0, "all_mib": 0.0}


def time_bare(variant: str) -> float:
    """Return faces per second of the network alone, in batches on one thread."""
    recognizer = Recognizer(variant=variant, threads=1)
    network = list_variants(recognizer.config)[recognizer.variant]
    session = open_session(recognizer.folder / network["file"], 1)
    size = network["preprocessing"]["image_size"]
    images = np.random.default_rng(0).standard_normal((BATCH_SIZE, 3, size, size), np.float32)
    session.run(None, {INPUT: images})
    n, began = 0, time.perf_counter()
    while time.perf_counter() - began < BARE_SECONDS:
        session.run(None, {INPUT: images})
        n += BATCH_SIZE
    return n / (time.perf_counter() - began)


def time_parts(table: Path, variant: str) -> dict[str, float]:
    """Return the milliseconds of an image in each part of the work, one by one on one thread."""
    recognizer = Recognizer(variant=variant, threads=1)
    images = pq.read_table(table).column(0)[:N_TIMED].to_pylist()
    seconds = dict.fromkeys(("decode", "detect", "classify"), 0.0)
    recognizer(decode_image(images[0]))
    for image in images:
        times = [time.perf_counter()]
        pixels = decode_image(image)
        times.append(time.perf_counter())
        if max(pixels.shape) > LARGEST_CROP:
            faces = recognizer.detector.detect(pixels)
            times.append(time.perf_counter())
            recognizer.recognize(pixels, faces)
        else:
            times.append(time.perf_counter())
            recognizer.compute_probabilities([recognizer.fit_crop(pixels)])
        times.append(time.perf_counter())
        for part, passed in zip(seconds, np.diff(times), strict=True):
            seconds[part] += float(passed)
    return {part: 1e3 * total / len(images) for part, total in seconds.items()}


def kill_and_resume(table: Path, variant: str) -> dict[str, Any]:
    """Score a table while workers and drivers are killed; return what came of it.

    A worker's place is taken by another; after the death of its driver the same command is started again.
    """
    rng, done = random.Random(0), []
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "output")
        driver = start(table, output, variant, max(WORKERS))
        for who in KILLED:
            time.sleep(rng.uniform(20, 38))  # the workers are there after some 15 seconds
            if driver.poll() is not None:
                break
            while not (scoring := list_workers(driver, "MapWorker")):
                time.sleep(1)
            workers = list_workers(driver)
            if who == "worker":
                rng.choice(scoring).kill()
            else:
                driver.kill()
                driver.wait()
                psutil.wait_procs(workers, timeout=60)
                driver = start(table, output, variant, max(WORKERS))
            done.append({"killed": who, "rows_then": len(read_sources(output))})
        status, sources = driver.wait(), read_sources(output)
    return {
        "kills": done,
        "status": status,
        "images": pq.read_metadata(table).num_rows,
        "rows": len(sources),
        "distinct": int(sources.nunique()),
    }


def list_workers(driver: subprocess.Popen[bytes], kind: str = "") -> list[psutil.Process]:
    """Return the processes of the driver's Ray that score and write; with a `kind`, those of that name."""
    found = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        with suppress(psutil.Error):  # one that ends meanwhile
            name = " ".join(process.cmdline())
            if name.startswith(f"ray::{kind}") and "Agent" not in name:
                found.append(process)
    return found


def read_sources(output: Path) -> pd.Series:
    """Return the ids in all finished tables of an output."""
    tables = [
        pd.read_parquet(path, columns=["source"])["source"] for path in output.glob("shard=*/*.parquet")
    ]
    return pd.concat(tables) if tables else pd.Series(dtype=str)


def measure_listing() -> float:
    """Return the bytes that the driver holds for each image that is a file."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(N_FILES):
            Path(folder, f"{number:08d}.jpg").touch()
        before = psutil.Process().memory_info().rss
        parts = list(list_parts([folder], "image", Counter()))
        held = psutil.Process().memory_info().rss - before
        return held / sum(part.n_images for part in parts)


def measure_kills(dataset: str, n_crops: int, found: dict[str, Any]) -> None:
    """Add to what was found how a run on crops ends that is killed again and again."""
    with tempfile.TemporaryDirectory() as folder:
        crops = Path(folder, "crops.parquet")
        write_crops(crops, dataset, n_crops)
        # B0 takes long enough for six kills.
        found["resumed"] = {**kill_and_resume(crops, WORKS["crops_b0"]), "commit": get_commit()}
    print(write_measurements("score", found), found["resumed"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", default="fer2013")
    parser.add_argument("--crops", type=int, default=100_000)
    parser.add_argument("--scenes", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", action="store_true", help="kill and resume alone; keep the rest as it is")
    options = parser.parse_args()
    if options.kills:
        measure_kills(options.dataset, options.crops, read_measurements("score"))
        return
    runs, parts, bare = [], {}, []
    found: dict[str, Any] = {"listing_bytes": measure_listing()}
    with tempfile.TemporaryDirectory() as folder:
        tables = {work: Path(folder, f"{work}.parquet") for work in WORKS}
        write_crops(tables["crops"], options.dataset, options.crops)
        write_crops(tables["crops_b0"], options.dataset, options.crops // B0_SHARE)
        write_scenes(tables["scenes"], options.scenes)
        found["variants"] = WORKS
        found["images"] = {work: pq.read_metadata(table).num_rows for work, table in tables.items()}
        found["input_bytes"] = {work: table.stat().st_size for work, table in tables.items()}
        for work, table in tables.items():
            variant = WORKS[work]
            parts[work] = time_parts(table, variant)
            for number in range(options.rounds):
                bare.append({"work": work, "round": number, "per_second": time_bare(variant)})
                for workers in WORKERS:
                    run = {"work": work, "round": number, "workers": workers}
                    runs.append(run | time_run(table, variant, workers))
                    print(runs[-1], flush=True)
        found |= {"parts_ms": parts, "bare": bare, "runs": runs}
    measure_kills(options.dataset, options.crops, found)


if __name__ == "__main__":
    main()
