"""Look at faces with a released or trained model: the commands `predict`, `video`, `audit` and others.

A problem with one image is one line on stderr; the rest of the batch goes on, and the exit status tells.
"""

import csv
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fer_lib.errors import FerError, MediaError
from fer_lib.inference.registry import DEFAULT_MODEL, list_checkpoints, list_variants, name_network
from fer_lib.models.checkpoints import read_config

if TYPE_CHECKING:
    from fer_lib.inference.baseline import Baseline
    from fer_lib.inference.recognizer import Face, Recognizer

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


def _load(model: str, variant: str | None) -> "Recognizer":
    from fer_lib.inference.recognizer import Recognizer

    return Recognizer.load(model, variant=variant)


def _read_baseline(recognizer: "Recognizer", photograph: str | None) -> "Baseline | None":
    from fer_lib.inference.baseline import Baseline

    return None if photograph is None else Baseline.from_image(recognizer, photograph)


def _report(problem: str) -> None:
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
    recognizer = _load(model, variant)
    baseline = _read_baseline(recognizer, neutral)
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
            _report(f"standard input: {error}" if path == STDIN else str(error))
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
        named = f"unsure ({guess})" if face.abstained else f"{guess} ({face.group})"
        turned = f", image turned by {face.turned} degrees" if face.turned else ""
        print(f"  {number:2d}  {named:26s} at {left},{top}, {width} x {height}{turned}", flush=True)


@click.command()
@click.argument("video", metavar="IN")
@click.option("--out", metavar="OUT.mp4", help="Where to write the video with boxes and labels.")
@click.option("--table", metavar="OUT.csv", help="Where to write the table, .csv or .parquet.")
@click.option("--blur", is_flag=True, help="Make the faces in --out unrecognisable.")
@neutral_option
@click.option(
    "--neutral-seconds",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    help="Take each person's first N seconds for rest, in place of --neutral. On drawn faces, several "
    "images at rest serve better than one.",
)
@model_options
def video(
    video: str,
    out: str | None,
    table: str | None,
    blur: bool,
    neutral: str | None,
    neutral_seconds: float | None,
    model: str,
    variant: str | None,
) -> int:
    """Follow the faces of a video."""
    if not out and not table:
        raise MediaError("video: expected --out OUT.mp4, --table OUT.csv or both; name one")
    if blur and not out:
        raise MediaError(
            "video: --blur hides the faces in the video of --out; name one, or leave --blur away"
        )
    if neutral and neutral_seconds:
        raise click.UsageError("expected --neutral or --neutral-seconds, found both")
    if table and not table.lower().endswith((".csv", ".parquet")):
        raise MediaError(f"{table}: expected a name that ends in .csv or .parquet; choose one of them")
    from tqdm import tqdm

    from fer_lib.inference.video import analyse_video, write_table

    recognizer, shown = _load(model, variant), "{desc} {percentage:3.0f}%|{bar}| {elapsed} < {remaining}"
    baseline = _read_baseline(recognizer, neutral)
    with tqdm(total=1.0, desc=Path(video).name, bar_format=shown, disable=None) as bar:  # only at a terminal
        result = analyse_video(
            recognizer,
            video,
            out,
            blur=blur,
            baseline=baseline,
            neutral_seconds=neutral_seconds or 0.0,
            progress=lambda done: bar.update(done - bar.n),
        )
    if table:
        write_table(result.table, table)
    n_faces = result.table["track"].nunique()
    print(f"{video}: {result.n_frames:,} frames, {n_faces} face{'' if n_faces == 1 else 's'}")
    if not n_faces:
        print("Frames are searched the way up that the file says; turn a video that lies on its side.")
    for written in (out, table):
        if written:
            print(f"written: {written}")
    for problem in result.problems:
        _report(f"{video}: {problem}")
    if result.problems:
        print("What could be read is written all the same.", file=sys.stderr)
    return 1 if result.problems else 0


@click.command()
@click.option("--camera", type=int, default=0, help="Which camera.")
@model_options
def webcam(camera: int, model: str, variant: str | None) -> None:
    """Name the emotions before the camera, once a second."""
    import cv2

    from fer_lib.inference.annotate import name_face
    from fer_lib.inference.tracking import FrameAnalyser

    analyser = FrameAnalyser(_load(model, variant))
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    source = cv2.VideoCapture(camera)
    try:
        if not source.isOpened():
            raise MediaError(
                f"camera {camera}: expected a camera, found none that opens; close other programs "
                "that use it, try --camera 1, or use the page Live of `make app`"
            )
        print("Ctrl-C stops. For an image with boxes, use the page Live of `make app`.", file=sys.stderr)
        started, printed = time.monotonic(), -1
        while True:
            read, frame = source.read()
            if not read:
                raise MediaError(f"camera {camera}: it gives no more images; connect it again")
            seconds = time.monotonic() - started
            faces = analyser(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), seconds)
            if int(seconds) > printed:
                printed = int(seconds)
                print(" | ".join(map(name_face, faces)) or "no face", flush=True)
    finally:
        source.release()


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
    recognizer = _load(model, variant)
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
    from fer_lib.metrics_file import show_score

    judged = ("accuracy by labels", "by annotators")
    head = ("model", "variant", "data set", "network", "emotions", "pixels", *judged)
    rows, status = [head], 0
    for name, folder in list_checkpoints().items():
        try:
            config = read_config(folder)
        except FerError as error:
            _report(str(error))
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

    recognizer = _load(model, variant)
    faces = load_external(recognizer, data)
    for problem in faces.problems:
        _report(problem)
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

    model = str(_load(model, variant).folder)  # a model that is not there is told before the notebook starts
    if Path(data).is_dir():
        data = str(Path(data).absolute())  # the notebook runs in the project's folder
    print(f"report: {audit_model(model, data, Path(out), variant, n_faces)}")
