"""Put the page together in `app/web/dist/`: a folder that any web server can serve, or `make web`.

ONNX Runtime comes from npm (`package-lock.json`), the networks from the released model, YuNet from `fer_lib`.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
from filelock import FileLock

from demo_faces.clips import draw_scene
from fer_lib.data.detector import MODEL_FILE
from fer_lib.errors import FerError
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.registry import DEFAULT_MODEL, list_variants
from fer_lib.palette import choose_colours

HERE = Path(__file__).resolve().parent
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
ENDS = ("", "_lo", "_hi")
"""Of the keys of a score and its 95% interval."""

PHOTOGRAPH = HERE.parent / "examples" / "grace_hopper.jpg"


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
    for path in [*HERE.glob("*.js"), HERE / "index.html", HERE / "style.css", MODEL_FILE]:
        shutil.copy(path, target)
    shutil.copy(PHOTOGRAPH, target / "photograph.jpg")
    scene, _ = draw_scene(n_faces=2, width=960, height=600)
    cv2.imwrite(str(target / "drawing.jpg"), cv2.cvtColor(scene, cv2.COLOR_RGB2BGR))
    _write_model(target, Recognizer())
    return target


def _write_model(target: Path, recognizer: Recognizer) -> None:
    """Copy the int8 networks, and write what the page must know of the model into `model.json`."""
    if recognizer.framing.channels != 1:
        raise FerError(
            f"{DEFAULT_MODEL}: expected a model of grey faces, which the page can show; release one"
        )
    known, variants = list_variants(recognizer.config), {}
    small = {name: variant for name, variant in known.items() if variant.get("quantized")}
    for name, variant in small.items():
        shutil.copy(recognizer.folder / variant["file"], target)
        accuracy = {f"accuracy{end}": variant["metrics"][f"test.majority.accuracy{end}"] for end in ENDS}
        variants[name] = {
            "file": variant["file"],
            "bytes": variant["bytes"],
            "abstain_below": variant["abstain_below"],
            **variant["preprocessing"],
            **accuracy,
        }
    model = {
        "dataset": recognizer.config["dataset"],
        "default": recognizer.variant,
        "emotions": recognizer.emotions,
        "colours": choose_colours(recognizer.emotions),
        "framing": recognizer.framing.to_dict(),
        "variants": variants,
    }
    (target / "model.json").write_text(json.dumps(model, indent=2))


if __name__ == "__main__":
    try:
        print(f"page: {build()}")
    except FerError as error:
        sys.exit(f"error: {error}")
