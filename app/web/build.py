"""Put the page together in `app/web/dist/`: a folder that any web server can serve, or `make web`.

ONNX Runtime comes from npm (`package-lock.json`), the networks from the released model.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
from filelock import FileLock

from demo_faces.clips import draw_scene
from fer_lib.data.framing import cut_face
from fer_lib.errors import FerError
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.registry import DEFAULT_MODEL, list_variants

HERE = Path(__file__).resolve().parent
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
PAGE = ("index.html", "main.js", "preprocessing.js", "style.css")
EXAMPLE_SIDE = 192
"""Pixels of the canvas in `index.html`; a multiple of the framing's side, which the page shrinks it to."""


def install_packages() -> Path:
    """Install what `package-lock.json` lists, unless it is there already; return the folder of the packages.

    Raises FerError when npm is missing or fails.
    """
    packages, lock = HERE / "node_modules", HERE / "package-lock.json"
    done = packages / ".package-lock.json"  # npm writes it last
    with FileLock(HERE / ".npm.lock"):  # tests run side by side
        if done.is_file() and done.stat().st_mtime >= lock.stat().st_mtime:
            return packages
        npm = shutil.which("npm")
        if npm is None:
            raise FerError("npm: expected Node.js for the page in app/web, found none; install it")
        command = [npm, "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--include=dev"]
        result = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
        if result.returncode:
            raise FerError(f"app/web: `npm ci` failed: {' '.join(result.stderr.split())[:200]}")
    return packages


def build(target: Path = HERE / "dist") -> Path:
    """Write the page's folder anew; return it. Raises FerError when npm is missing or fails."""
    packages = install_packages()
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in RUNTIME:
        shutil.copy(packages / "onnxruntime-web" / "dist" / name, target)
    for name in PAGE:
        shutil.copy(HERE / name, target)
    recognizer = Recognizer.load()
    _write_model(target, recognizer)
    _write_example(target / "example.png", recognizer)
    return target


def _write_model(target: Path, recognizer: Recognizer) -> None:
    if recognizer.framing.channels != 1:
        raise FerError(
            f"{DEFAULT_MODEL}: expected a model of grey faces, which the page can show; release one"
        )
    known, variants = list_variants(recognizer.config), {}
    small = {name: variant for name, variant in known.items() if variant.get("quantized")}
    for name, variant in sorted(small.items(), key=lambda item: item[1]["bytes"]):  # first: loaded at once
        shutil.copy(recognizer.folder / variant["file"], target)
        variants[name] = {
            "file": variant["file"],
            **variant["preprocessing"],
            "megabytes": f"{variant['bytes'] / 1e6:.1f}",
            "accuracy": f"{variant['metrics']['test.majority.accuracy']:.0%}",
            "abstain_below": variant["abstain_below"],
        }
    model = {
        "emotions": recognizer.emotions,
        "framing": recognizer.framing.size,
        "variants": variants,
    }
    (target / "model.json").write_text(json.dumps(model, indent=2))


def _write_example(path: Path, recognizer: Recognizer) -> None:
    """Draw a person and cut out the face as the network's faces are, only larger."""
    scene, _ = draw_scene(n_faces=1, width=640, height=480)
    (face,) = recognizer(scene)
    crop = cut_face(scene, face.landmarks, replace(recognizer.framing, size=EXAMPLE_SIDE, channels=3))
    cv2.imwrite(str(path), cv2.cvtColor(crop, cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    try:
        print(f"page: {build()}")
    except FerError as error:
        sys.exit(f"error: {error}")
