"""Our released model and other public packages, all on the same faces: FER2013's PrivateTest.

    python benchmarks/peers.py [--only ours fer ...] [--threads 2] [--n-faces N]

Every package runs in an environment of its own under `scratch/peers/` (8 GB in all), made with uv or npm;
these need their registries for that. Nothing is added to the project's own. What `benchmarks/peers/` asks of
it is its own preprocessing and network: the faces are cut out already, so its face detector is left out.

Scores are compared over our seven classes: one that a package lacks is never right, one that it has on top
(contempt) cannot win. A time is the median over the faces, given one after the other as pixels, with the
package's preprocessing; all may use the same cores, not all do. `without copies` leaves out the faces that
are pixel for pixel in FER2013's training split. `p`: McNemar's exact test against ours. Which faces a package
was fitted to or selected on is for its authors to say; some may have seen these.
"""

import argparse
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import confusion_matrix
from tqdm import tqdm

from fer_lib.data.packed import load_packed
from fer_lib.evaluation.metrics import compare_mcnemar
from fer_lib.inference.registry import DEFAULT_MODEL
from fer_lib.labels import EMOTIONS_7, normalise_emotion
from fer_lib.paths import SCRATCH_DIR

ADAPTERS = Path(__file__).with_suffix("")
TIME_LIMIT = 7200
"""Seconds for one installation, and for one package's faces."""

OPENCV = "opencv-python-headless<5"
TENSORFLOW = ("tensorflow-cpu<2.20", "setuptools<81", OPENCV, "pandas", "pillow", "requests", "tqdm")
# The project's own versions, so that all run on the torch that we train with.
TORCH = (
    *(f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in ("torch", "torchvision")),
    *("setuptools<81", OPENCV, "pillow", "requests"),
)


@dataclass(frozen=True)
class Peer:
    """One row of the table.

    adapter: its function in `adapters.py`, or its file beside it.   package: exactly this version, installed
    without the dependencies it declares, which would bring its face detector's.   needs: what its classifier
    needs instead.   weights: where it fetches its weights when first used, if it does not bring them.
    """

    name: str
    adapter: str
    package: str = ""
    version: str = ""
    needs: tuple[str, ...] = ()
    weights: str = ""

    @property
    def folder(self) -> Path:
        """Its environment; rows of one package share it."""
        return SCRATCH_DIR / "peers" / self.package.strip("@").replace("/", "-")


FER = ("fer", "25.10.3", TENSORFLOW)
TFJS = ("@tensorflow/tfjs@4.22.0", "@tensorflow/tfjs-backend-wasm@4.22.0")
ONNX = ("onnx", "onnxruntime", OPENCV, "pillow")
FACENET = (*TORCH, "facenet-pytorch==2.5.3")
PEERS = (
    Peer("ours", "ours", version=importlib.metadata.version("fer-lib")),
    Peer("fer", "fer", *FER),
    Peer("fer, its Keras model", "fer_keras", *FER),
    Peer("what-the-face", "what_the_face", "what-the-face-classification", "0.0.27", TORCH),
    Peer("facial-emotion-recognition", "facial_emotion", "facial-emotion-recognition", "0.3.4", FACENET),
    Peer("facex", "facex", "facex", "1.1.0", (*TENSORFLOW, "scikit-image")),
    Peer("face-api (npm)", "face_api.js", "@vladmandic/face-api", "1.7.15", TFJS),
    Peer("rmn", "rmn", "rmn", "3.3.0", (*TORCH, "huggingface-hub", "pytorchcv"), "the Hugging Face Hub"),
    Peer("emotiefflib", "emotiefflib", "emotiefflib", "1.1.1", ONNX, "GitHub"),
    Peer("deepface", "deepface", "deepface", "0.0.103", (*TENSORFLOW, "tf-keras<2.20", "gdown"), "GitHub"),
)


class PeerError(Exception):
    """A package could not be installed or run; the message is one short line."""


def run(command: list[str | Path], folder: Path, found: str, **env: str) -> None:
    """Run `command`. Raises PeerError with the line of its errors that the pattern `found` finds."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    options = {"capture_output": True, "text": True, "check": True, "timeout": TIME_LIMIT}
    try:
        subprocess.run(command, env=kept | env, cwd=folder, **options)
    except subprocess.CalledProcessError as error:
        lines = re.findall(found, error.stderr, re.MULTILINE) or error.stderr.strip().splitlines()[-1:]
        # Addresses and folders are this machine's affair.
        line = re.sub(r"(https?:/|host='|~?/)\S+", "...", (lines or ["no message"])[0])
        raise PeerError(line[:120].strip()) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerError(f"{Path(command[0]).name}: {type(error).__name__}") from None


def install(peer: Peer) -> list[str | Path]:
    """Return the command that runs the peer's adapter, once its environment is there."""
    if not peer.package:
        return [sys.executable, ADAPTERS / "adapters.py", peer.adapter]
    peer.folder.mkdir(parents=True, exist_ok=True)
    if peer.adapter.endswith(".js"):
        packages = [f"{peer.package}@{peer.version}", *peer.needs]
        run(["npm", "install", "--no-audit", "--no-fund", "--prefix", ".", *packages], peer.folder, "error.*")
        return ["node", ADAPTERS / peer.adapter]
    uv = shutil.which("uv") or Path(sys.executable).with_name("uv")
    python = peer.folder / "bin" / "python"
    run([uv, "venv", "--allow-existing", "--python", sys.executable, "."], peer.folder, "^error.*")
    add = [uv, "pip", "install", "--python", python]
    run([*add, *peer.needs], peer.folder, "^(?:error|  ×).*")
    run([*add, "--no-deps", f"{peer.package}=={peer.version}"], peer.folder, "^(?:error|  ×).*")
    return [python, ADAPTERS / "adapters.py", peer.adapter]


def ask(peer: Peer, faces: Path, threads: int) -> tuple[np.ndarray, float]:
    """Return the peer's predictions, int (N,) of EMOTIONS_7, and its median milliseconds per face."""
    try:
        command = install(peer)
    except PeerError as error:
        raise PeerError(f"not installed: {error}") from None
    count = str(threads)
    env = {f"{name}_NUM_THREADS": count for name in ("OMP", "MKL", "OPENBLAS")}
    env |= {f"TF_NUM_{kind}_THREADS": count for kind in ("INTRAOP", "INTEROP")}
    env["CUDA_VISIBLE_DEVICES"] = "-1"
    if peer.package:
        # Downloads of the package go where its environment is.
        env |= {"HOME": str(peer.folder), "NODE_PATH": str(peer.folder / "node_modules")}
    result = faces.with_name("result.json")
    try:
        run([*command, faces, result], faces.parent, "^cannot load: .*", **env)
    except PeerError as error:
        reason = str(error).removeprefix("cannot load: ")
        state = "not run" if reason == str(error) else "not installed"
        if peer.weights and state == "not installed":
            reason = f"fetches its weights from {peer.weights}; {reason.partition(':')[0]}"
        raise PeerError(f"{state}: {reason}") from None
    answer = json.loads(result.read_text())
    result.unlink()
    rows = [{normalise_emotion(name): score for name, score in row.items()} for row in answer["scores"]]
    best = [max(EMOTIONS_7, key=lambda name, row=row: row.get(name, -np.inf)) for row in rows]
    return np.array([EMOTIONS_7.index(name) for name in best]), float(np.median(answer["milliseconds"]))


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="PEER", choices=[peer.name for peer in PEERS])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--n-faces", type=int, default=3589, help="of the test split, evenly spread")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # Linux; what the peers start inherits it
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])

    data = load_packed("fer2013")
    rows = data.get_rows("test")
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(options.n_faces, len(rows))).astype(int))]
    labels, is_new = data.labels[rows], np.isin(rows, data.get_rows("test", drop_duplicates_of="train"))
    counts = f"{len(rows):,} faces of FER2013's PrivateTest, {is_new.sum():,} without copies"
    print(f"{counts}; {options.threads} threads; ours is {DEFAULT_MODEL}")
    print(f"standard error of one accuracy: {np.sqrt(0.25 / len(rows)):.3f}; of differences, less\n")
    print(f"{'package':27s} version   accuracy  without copies  macro recall  ms/face  p against ours")

    ours = None
    with tempfile.TemporaryDirectory() as temporary:  # faces stay out of the repository
        faces = Path(temporary) / "faces.npy"
        np.save(faces, np.ascontiguousarray(data.faces[rows]))
        peers = [peer for peer in PEERS if not options.only or peer.name in ("ours", *options.only)]
        for peer in tqdm(peers, unit="package"):
            start = f"{peer.name:27s} {peer.version:8s}  "
            try:
                predictions, milliseconds = ask(peer, faces, options.threads)
            except PeerError as error:
                if peer.name == "ours":
                    sys.exit(f"error: our model: {error}")
                tqdm.write(f"{start}{error}")
                continue
            correct = predictions == labels
            ours = correct if peer.name == "ours" else ours
            confusion = confusion_matrix(labels, predictions, labels=range(len(EMOTIONS_7)))
            occurs = confusion.any(axis=1)
            recall = (confusion.diagonal()[occurs] / confusion.sum(axis=1)[occurs]).mean()
            p = "" if ours is correct else f"{compare_mcnemar(ours, correct):14.2g}"
            tqdm.write(
                f"{start}{correct.mean():8.4f}  {correct[is_new].mean():14.4f}  {recall:12.4f}  "
                f"{milliseconds:7.2f}  {p}".rstrip()
            )


if __name__ == "__main__":
    main()
