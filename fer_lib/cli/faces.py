"""Look at faces with a released or trained model: the commands `predict`, `explain`, `audit` and others.

A problem with one image is one line on stderr; the rest of the batch goes on, and the exit status tells.
"""

import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fer_lib.errors import FerError, MediaError
from fer_lib.inference.registry import (
    DEFAULT_MODEL,
    list_checkpoints,
    list_variants,
    name_network,
    read_model,
)
from fer_lib.labels import NO_GROUP

if TYPE_CHECKING:
    from fer_lib.inference.baseline import Baseline
    from fer_lib.inference.faces import Face
    from fer_lib.inference.recognizer import Recognizer

MAX_EXPLAINED = 8
"""Faces of an image in one figure of explanations."""


MANY_IMAGES = 10_000
"""From so many on, `predict`, which takes one after the other, recommends `score`."""


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--model` and `--variant`."""
    known = "A name that `models` lists, or a checkpoint's folder."
    variant = click.option("--variant", help="One that `models` lists; else the model's default.")
    return click.option("--model", default=DEFAULT_MODEL, help=known)(variant(command))


neutral_option = click.option(
    "--neutral",
    metavar="PHOTO",
    help="The same person at rest: emotions that the resting face shows count for less. On drawn faces, one "
    "photograph finds more neutral ones and hardly changes the accuracy; a smiling one costs much of it.",
)

data_option = click.option(
    "--data", default="demo", help="A packed data set, or a folder with one folder per class."
)


def load_model(model: str, variant: str | None) -> "Recognizer":
    """Return a recognizer, once a command needs one."""
    from fer_lib.inference.recognizer import Recognizer

    return Recognizer(model, variant=variant)


def read_baseline(recognizer: "Recognizer", photograph: str | None) -> "Baseline | None":
    """Return the baseline that `--neutral` names."""
    from fer_lib.inference.baseline import Baseline

    return None if photograph is None else Baseline.from_image(recognizer, photograph)


def report(problem: str) -> None:
    """Tell of one input that failed; the others go on."""
    print(f"error: {problem}", file=sys.stderr, flush=True)


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMG...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--csv", "as_csv", is_flag=True, help="Print a table, a row per face.")
@neutral_option
@model_options
def predict(
    images: Sequence[str], as_json: bool, as_csv: bool, neutral: str | None, model: str, variant: str | None
) -> int:
    """Name the emotions of the faces in images. Takes files, folders and globs; - is stdin."""
    from fer_lib.data.image_files import STDIN, PassedOver, describe_counts, expand_paths, show_name

    if as_json and as_csv:
        raise click.UsageError("expected --json or --csv, found both")
    recognizer = load_model(model, variant)
    baseline = read_baseline(recognizer, neutral)
    if as_csv:
        from fer_lib.inference.annotate import COLUMNS, build_rows

        table = csv.DictWriter(sys.stdout, [*COLUMNS, *recognizer.emotions], lineterminator="\n")
        table.writeheader()
    status, documents = 0, []
    passed_over: PassedOver = {}
    paths = list(expand_paths(images, passed_over))
    if len(paths) >= MANY_IMAGES:
        print(
            f"{len(paths):,} images: `fer score` uses every core, and resumes where it was interrupted",
            file=sys.stderr,
        )
    for path in paths:
        try:
            if os.path.isdir(path):
                raise MediaError(f"{path}: expected image files in the folder, found none; check the path")
            faces = recognizer(sys.stdin.buffer.read() if path == STDIN else path, baseline=baseline)
        except MediaError as error:
            report(f"standard input: {error}" if path == STDIN else str(error))
            status = 1
            continue
        if as_csv and not faces:
            print(f"{show_name(path)}: no faces found", file=sys.stderr)
        if as_csv:
            table.writerows(build_rows(path, faces))
        elif as_json:
            documents.append({"source": path, "faces": [face.to_dict() for face in faces]})
        else:
            _print_faces(path, faces)
    if as_json:
        print(json.dumps(documents, indent=2))
    if passed_over:
        print(f"passed over {describe_counts(Counter(passed_over.values()))}", file=sys.stderr)
    return status


def _print_faces(path: str, faces: Sequence["Face"]) -> None:
    from fer_lib.data.image_files import show_name

    print(f"{show_name(path)}: {len(faces) or 'no'} face{'' if len(faces) == 1 else 's'} found")
    for number, face in enumerate(faces, start=1):
        left, top, width, height = face.box
        guess = f"{face.label} {face.confidence:.0%}"
        group = "" if face.group == NO_GROUP else f" ({face.group})"
        named = f"unsure ({guess})" if face.abstained else f"{guess}{group}"
        turned = f", image turned by {face.turned} degrees" if face.turned else ""
        print(f"  {number:2d}  {named:26s} at {left},{top}, {width} x {height}{turned}", flush=True)


@click.command()
@click.argument("image", metavar="IMG")
@click.option("--out", required=True, metavar="OUT.png", help="Where to write the figure.")
@click.option("--emotion", metavar="NAME", help="Default: each face's most likely one.")
@model_options
def explain(image: str, out: str, emotion: str | None, model: str, variant: str | None) -> None:
    """Draw which parts of a face speak for an emotion."""
    import io

    from fer_lib.files import write_atomically

    if not out.lower().endswith(".png"):
        raise MediaError(f"{out}: expected a name that ends in .png; rename the figure")
    recognizer = load_model(model, variant)
    faces = recognizer(image)
    if not faces:
        raise MediaError(f"{image}: no face was found; use an image in which one is turned to the camera")
    checkpoint = recognizer.checkpoint
    from fer_lib.reporting.figures.analysis import plot_explanations  # after what says that torch is missing

    content = io.BytesIO()
    figure = plot_explanations(checkpoint, faces[:MAX_EXPLAINED], emotion)
    figure.savefig(content, format="png", dpi=120)
    write_atomically(Path(out), content.getvalue())
    left_out = len(faces) - MAX_EXPLAINED
    print(f"written: {out}" + (f" (the {left_out} smallest faces are left out)" if left_out > 0 else ""))


@click.command()
def models() -> int:
    """List the models there are."""
    from fer_lib.intervals import show_score

    judged = ("accuracy by labels", "by annotators")
    head = ("model", "variant", "data set", "network", "emotions", "pixels", *judged)
    rows, status = [head], 0
    for name, folder in list_checkpoints().items():
        try:
            config = read_model(folder)
        except FerError as error:
            report(str(error))
            status = 1
            continue
        for variant, entry in list_variants(config).items():
            default = " (default)" if variant == config.get("default") else ""
            about = (name, f"{variant}{default}", config.get("dataset", "–"), name_network(entry))
            pixels = entry.get("preprocessing", {}).get("image_size", "–")  # a vote has none
            size = (str(len(config["emotions"])), str(pixels))
            metrics = entry.get("metrics", {})
            rows.append(
                (
                    *about,
                    *size,
                    *(show_score(metrics, f"test.{judge}accuracy") for judge in ("", "majority.")),
                )
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return status


@click.command()
@model_options
@data_option
def evaluate(model: str, variant: str | None, data: str) -> int:
    """Score a model on a folder of faces, sorted by emotion.

    Images of at most 64 pixels are taken for faces; of others the largest face counts.
    """
    from fer_lib.analysis.external import LEFT_OUT, load_external
    from fer_lib.data.image_files import describe_counts
    from fer_lib.evaluation.bootstrap import Bootstrap
    from fer_lib.evaluation.metrics import score_predictions

    recognizer = load_model(model, variant)
    faces = load_external(recognizer, data)
    for problem in faces.problems:
        report(problem)
    print(faces.mapping.to_string(index=False))
    n_faces, present = len(faces.labels), sorted(set(faces.labels.tolist()))
    bootstrap = Bootstrap(n_faces, n_resamples=1000, seed=0, clusters=faces.persons)
    probabilities = recognizer.compute_probabilities(faces.crops)
    scores = score_predictions(faces.labels, probabilities, recognizer.emotions, bootstrap)
    classes = f"{len(present)} of {len(recognizer.emotions)} classes"
    is_left_out = faces.mapping["model's emotion"] == LEFT_OUT
    left_out = {
        str(name): int(n) for name, n in faces.mapping.loc[is_left_out, ["class", "images"]].to_numpy()
    }
    parts = [
        f"\n{faces.name}: {n_faces:,} face{'' if n_faces == 1 else 's'} of {classes}",
        f"passed over {describe_counts(Counter(faces.passed_over.values()))}",
        f"of classes left out {describe_counts(left_out)}",
        f"without a face {faces.mapping['no face'].sum():,}",
        f"unreadable {len(faces.problems):,}",
    ]
    print(", ".join(parts))
    titles = {"accuracy": "accuracy", "macro.recall": f"macro recall, {classes}", "ece": "ECE"}
    titles |= {
        f"recall.{recognizer.emotions[label]}": f"recall of {recognizer.emotions[label]}" for label in present
    }
    for key, title in titles.items():
        score = scores[key]
        # Of few faces the bootstrap does not know what they do not show.
        shown = f"{score}" if score.low < score.high else f"{score.value:.3f}, the same in every resample"
        print(f"{title:30} {shown}")
    return 1 if faces.problems else 0


@click.command()
@click.option("--out", default="audit", help="The folder to write.")
@click.option("--faces", "n_faces", type=click.IntRange(1), default=300, help="How many are perturbed.")
@model_options
@data_option
def audit(out: str, n_faces: int, model: str, variant: str | None, data: str) -> None:
    """Write the robustness and subgroup report of a model."""
    from fer_lib.reporting.execution import audit_model

    # A model that is not there is told before the notebook starts.
    model = str(load_model(model, variant).folder)
    if Path(data).is_dir():
        data = str(Path(data).absolute())  # the notebook runs in the project's folder
    print(f"report: {audit_model(model, data, Path(out), variant, n_faces)}")
