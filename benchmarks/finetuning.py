"""How long does fine-tuning on 200 faces take, and what does it bring?

    python benchmarks/finetuning.py > benchmarks/results/finetuning.txt

The faces are those of `fer draw`, in folders as a user has them: with their emotions, and those of two
emotions under made-up names. Each set is trained with the settings of `params.yaml`, and scored on the fifth
that is held back.
"""

import shutil
import tempfile
import time
from pathlib import Path

from PIL import Image

from fer_lib.cli.drawn import SEED, SIZE, choose_numbers
from fer_lib.data.readers.demo import make_face
from fer_lib.finetuning.finetune import finetune
from fer_lib.inference.registry import DEFAULT_MODEL
from fer_lib.labels import EMOTIONS_7
from fer_lib.machine import describe_machine
from fer_lib.paths import get_packed_dir
from fer_lib.provenance import get_commit

CLASSES = {
    "two-made-up": {"happy": "sunny", "sad": "cloudy"},
    "seven-emotions": {name: name for name in EMOTIONS_7},
}
N_FACES = 200


def draw_folder(folder: Path, names: dict[str, str]) -> None:
    for number in choose_numbers(N_FACES * len(EMOTIONS_7) // len(names)):
        face = make_face(number, SIZE, SEED)
        if name := names.get(EMOTIONS_7[face.label]):
            path = folder / name / f"{number:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(face.image).save(path)


def main() -> None:
    print(f"{N_FACES} drawn faces, {describe_machine()}, commit {get_commit()[:12]}")
    for title, names in CLASSES.items():
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / f"benchmark-{title}"
            draw_folder(source, names)
            started = time.monotonic()
            result = finetune(source, DEFAULT_MODEL)
            minutes = (time.monotonic() - started) / 60
        epochs = f"{len(result.history)} epochs, best {result.config['best_epoch']}"
        print(f"{title}: {minutes:.1f} minutes, {epochs}")
        print(f"  accuracy of {len(result.labels)} test faces {result.scores['accuracy']:.1%}")
        print(f"  the commonest class {result.majority:.1%}")
        if result.before:
            before, gain = result.before
            print(f"  before {before:.1%}, gain in points {gain.to_points():.1f}")
        shutil.rmtree(result.folder.parent)
        shutil.rmtree(get_packed_dir(source.name))


if __name__ == "__main__":
    main()
