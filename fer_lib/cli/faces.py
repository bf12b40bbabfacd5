"""The commands that look at faces: predict, video, webcam, explain, models, release, bench.

A problem with one picture is one line on stderr; the rest of the batch goes on, and the exit status tells.
"""

import argparse
import csv
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fer_lib.errors import FerError, MediaError
from fer_lib.metrics_file import format_interval
from fer_lib.models.checkpoints import (
    DEFAULT_MODEL,
    FLOAT_FORM,
    list_checkpoints,
    list_forms,
    read_config,
)

if TYPE_CHECKING:
    from fer_lib.inference.recognizer import Face, Recognizer

MAX_EXPLAINED = 8
"""Faces of a picture in one figure of explanations."""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the parsers of all commands of this module."""
    predict = commands.add_parser("predict", help="name the emotions of the faces in pictures")
    predict.add_argument("images", nargs="+", metavar="IMG", help="files, folders, globs; - is stdin")
    form = predict.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON document")
    form.add_argument("--csv", action="store_true", help="print a table, a row per face")
    _add_model(predict).set_defaults(run=_run_predict)

    video = commands.add_parser("video", help="follow the faces of a video")
    video.add_argument("video", metavar="IN", help="a video file")
    video.add_argument("--out", metavar="OUT.mp4", help="where to write the video with boxes and labels")
    video.add_argument("--table", metavar="OUT.csv", help="where to write the table, .csv or .parquet")
    video.add_argument("--blur", action="store_true", help="make the faces in --out unrecognisable")
    _add_model(video).set_defaults(run=_run_video)

    webcam = commands.add_parser("webcam", help="print what the camera's faces show, once a second")
    webcam.add_argument("--camera", type=int, default=0, metavar="N", help="which camera (default: 0)")
    _add_model(webcam).set_defaults(run=_run_webcam)

    explain = commands.add_parser("explain", help="draw which parts of a face speak for an emotion")
    explain.add_argument("image", metavar="IMG", help="a picture")
    explain.add_argument("--out", required=True, metavar="OUT.png", help="where to write the figure")
    explain.add_argument("--emotion", metavar="NAME", help="default: each face's most likely one")
    _add_model(explain).set_defaults(run=_run_explain)

    models = commands.add_parser("models", help="list the models there are")
    models.set_defaults(run=_run_models)

    release = commands.add_parser("release", help="calibrate and export a trained model for use")
    release.add_argument("dataset", metavar="DATASET", help="an evaluated data set, such as fer2013")
    release.add_argument("name", metavar="NAME", help="such as fer2013-b0; a folder in models/release/")
    release.set_defaults(run=_run_release)

    forms = commands.add_parser("release-forms", help="put the small forms of a data set beside a release")
    forms.add_argument("dataset", metavar="DATASET", help="a compressed data set, such as fer2013")
    forms.add_argument("name", metavar="NAME", help="a folder in models/release/")
    forms.set_defaults(run=_run_release_forms)

    bench = commands.add_parser("bench", help="time every form of a model on this machine")
    bench.add_argument("--model", default=DEFAULT_MODEL, metavar="M", help="a name that `models` lists")
    bench.set_defaults(run=_run_bench)


def _add_model(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="M", help="a name that `models` lists, or a folder"
    )
    parser.add_argument(
        "--form", default=FLOAT_FORM, metavar="F", help="float, int8 or tiny, as `models` lists them"
    )
    return parser


def _load(options: argparse.Namespace) -> "Recognizer":
    from fer_lib.inference.recognizer import Recognizer

    return Recognizer.load(options.model, form=options.form)


def _report(problem: str) -> None:
    print(f"error: {problem}", file=sys.stderr, flush=True)


def _run_predict(options: argparse.Namespace) -> int:
    from fer_lib.data.image_files import STDIN, list_images

    recognizer = _load(options)
    if options.csv:
        from fer_lib.inference.tables import COLUMNS, build_rows

        table = csv.DictWriter(sys.stdout, [*COLUMNS, *recognizer.emotions], lineterminator="\n")
        table.writeheader()
    status, documents = 0, []
    for path in list_images(options.images):
        try:
            if os.path.isdir(path):
                raise MediaError(
                    f"{path}: expected pictures in the folder, found none that may be read; check the path"
                )
            faces = recognizer(sys.stdin.buffer.read() if path == STDIN else path)
        except MediaError as error:
            _report(str(error))
            status = 1
            continue
        if options.csv:
            table.writerows(build_rows(path, faces))
        elif options.json:
            documents.append({"source": path, "faces": [face.to_dict() for face in faces]})
        else:
            _print_faces(path, faces)
    if options.json:
        print(json.dumps(documents, indent=2))
    return status


def _print_faces(path: str, faces: Sequence["Face"]) -> None:
    print(f"{path}: {len(faces) or 'no'} face{'' if len(faces) == 1 else 's'} found")
    for number, face in enumerate(faces, start=1):
        left, top, width, height = face.box
        guess = f"{face.label} {face.confidence:.0%}"
        named = f"unsure ({guess})" if face.abstained else f"{guess} ({face.group})"
        print(f"  {number:2d}  {named:26s} at {left},{top}, {width} x {height}", flush=True)


def _run_video(options: argparse.Namespace) -> int:
    if not options.out and not options.table:
        raise MediaError("video: expected --out OUT.mp4, --table OUT.csv or both; name one")
    if options.blur and not options.out:
        raise MediaError(
            "video: --blur hides the faces in the video of --out; name one, or leave --blur away"
        )
    from tqdm import tqdm

    from fer_lib.inference.video import analyse_video, write_table

    if options.table and not options.table.lower().endswith((".csv", ".parquet")):
        raise MediaError(
            f"{options.table}: expected a name that ends in .csv or .parquet; choose one of them"
        )
    recognizer = _load(options)
    form = "{desc} {percentage:3.0f}%|{bar}| {elapsed} < {remaining}"
    with tqdm(
        total=1.0, desc=Path(options.video).name, bar_format=form, disable=None
    ) as bar:  # only at a terminal
        result = analyse_video(
            recognizer,
            options.video,
            options.out,
            blur=options.blur,
            progress=lambda done: bar.update(done - bar.n),
        )
    if options.table:
        write_table(result.table, options.table)
    n_faces = result.table["track"].nunique()
    print(f"{options.video}: {result.n_frames:,} frames, {n_faces} face{'' if n_faces == 1 else 's'}")
    for written in filter(None, (options.out, options.table)):
        print(f"written: {written}")
    for problem in result.problems:
        _report(f"{options.video}: {problem}")
    if result.problems:
        print("What could be read is written all the same.", file=sys.stderr)
    return 1 if result.problems else 0


def _run_webcam(options: argparse.Namespace) -> None:
    import cv2

    from fer_lib.inference.annotate import name_face
    from fer_lib.inference.tracking import FrameAnalyser

    recognizer = _load(options)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    camera = cv2.VideoCapture(options.camera)
    try:
        if not camera.isOpened():
            raise MediaError(
                f"camera {options.camera}: expected a camera, found none that opens; close other programs "
                "that use it, try --camera 1, or use the page Live of `make app`"
            )
        print("Ctrl-C stops. For a picture with boxes, use the page Live of `make app`.", file=sys.stderr)
        analyser, clock = FrameAnalyser(recognizer), _Clock()
        while True:
            read, frame = camera.read()
            if not read:
                raise MediaError(f"camera {options.camera}: it gives no more pictures; connect it again")
            faces = analyser(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), clock.now())
            if clock.has_second_passed():
                print(" | ".join(map(name_face, faces)) or "no face", flush=True)
    finally:
        camera.release()


class _Clock:
    """Seconds since the start, and whether a further whole one has passed."""

    def __init__(self):
        import time

        self._read = time.monotonic
        self._start, self._last = self._read(), -1

    def now(self) -> float:
        return self._read() - self._start

    def has_second_passed(self) -> bool:
        second = int(self.now())
        passed, self._last = second > self._last, second
        return passed


def _run_explain(options: argparse.Namespace) -> None:
    import io

    from fer_lib.files import write_atomically
    from fer_lib.reporting.figures.faces import plot_explanations

    if not options.out.lower().endswith(".png"):
        raise MediaError(f"{options.out}: expected a name that ends in .png; rename the figure")
    recognizer = _load(options)
    faces = recognizer(options.image)
    if not faces:
        raise MediaError(
            f"{options.image}: no face was found; use a picture in which one is turned to the camera"
        )
    content = io.BytesIO()
    figure = plot_explanations(recognizer.checkpoint, faces[:MAX_EXPLAINED], options.emotion)
    figure.savefig(content, format="png", dpi=120)
    write_atomically(Path(options.out), content.getvalue())
    left_out = len(faces) - MAX_EXPLAINED
    print(
        f"written: {options.out}" + (f" (the {left_out} smallest faces are left out)" if left_out > 0 else "")
    )


def _run_models(_options: argparse.Namespace) -> int:
    rows = [("model", "form", "data set", "architecture", "emotions", "pixels", "test accuracy", "runs in")]
    status = 0
    for name, folder in list_checkpoints().items():
        try:
            config = read_config(folder)
        except FerError as error:
            _report(str(error))
            status = 1
            continue
        for form, entry in list_forms(config).items():
            metrics, accuracy = entry["metrics"], "–"
            if "test.accuracy_hi" in metrics:
                accuracy = format_interval(metrics, "test.accuracy", ".1%")
            runs_in = ["ONNX Runtime"] if (folder / entry["file"]).is_file() else []
            runs_in += ["PyTorch"] if form == FLOAT_FORM else []
            rows.append(
                (
                    *(name, form, config.get("dataset", "–"), entry["architecture"]),
                    *(str(len(config["emotions"])), str(entry["preprocessing"]["image_size"]), accuracy),
                    ", ".join(runs_in),
                )
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return status


def _run_release(options: argparse.Namespace) -> None:
    from fer_lib.deployment.release import release_model

    print(f"released: {release_model(options.dataset, options.name)}")


def _run_release_forms(options: argparse.Namespace) -> None:
    from fer_lib.deployment.release_forms import add_forms

    print(f"forms: {', '.join(add_forms(options.dataset, options.name))}")


def _run_bench(options: argparse.Namespace) -> None:
    from fer_lib.deployment.bench import run_bench

    print(run_bench(options.model))
