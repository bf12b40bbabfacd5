"""The command that fine-tunes a network on a user's own faces."""

import sys
from pathlib import Path

import click

from fer_lib.errors import DataError
from fer_lib.inference.registry import DEFAULT_MODEL, FINETUNED

RELEASE = "release"
"""Stands for the default release, whatever its name."""


@click.command()
@click.argument("faces", metavar="FACES", type=click.Path(path_type=Path))
@click.option("--from", "start", default=RELEASE, help="The model to start from, as `models` lists it.")
@click.option("--name", help="What to call the faces; without it, as their folder or file.")
def train(faces: Path, start: str, name: str | None) -> int:
    """Fine-tune a network on your own faces.

    The classes may be any. A model that the faces' name has already is replaced.

    FACES is a folder with one folder of images per class, or a CSV with the columns path and label and, if
    you like, person and split.
    """
    if not faces.exists():
        raise DataError(
            f"{faces}: expected a folder with one folder of images per class, or a CSV, found none; check "
            "the path"
        )
    from fer_lib.finetuning.finetune import finetune
    from fer_lib.reporting.finetuning_page import write_finetuning_page

    result = finetune(faces, DEFAULT_MODEL if start == RELEASE else start, name)
    for problem in result.faces.problems:
        print(f"error: {problem}", file=sys.stderr)
    model = f"{result.folder.parent.name}/{FINETUNED}"
    print(f"accuracy: {result.scores['accuracy']:.1%} of {len(result.labels)} test faces")
    print(f"report: {write_finetuning_page(result)}")
    print(f"model: {model}; `fer predict photo.jpg --model {model}`, or `make app`")
    return 1 if result.faces.problems else 0
