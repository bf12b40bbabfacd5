"""The commands that use a model: `predict`, `video`, `webcam`, `explain`, `models` and `release`."""

import argparse
import io
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from fer_lib.checkpoints import DEFAULT_MODEL, ONNX_NAME, list_checkpoints, read_config
from fer_lib.errors import FerError, MediaError, ModelError

MAX_EXPLAINED = 8
"""Faces in the figure of `explain`."""

MAX_LISTED = 10
"""Faces of a video that its summary tells about."""


def add_face_commands(commands: argparse._SubParsersAction) -> None:
    """Add the commands to the parser of `python -m fer_lib`."""
    predict = commands.add_parser("predict", help="name the emotions of the faces in pictures")
    predict.add_argument(
        "images", nargs="+", metavar="IMAGE", help="a file, folder or pattern; - reads stdin"
    )
    form = predict.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON document")
    form.add_argument("--csv", action="store_true", help="print a table, one row per face")
    predict.add_argument("--out", metavar="DIR", type=Path, help="also write copies with boxes and labels")
    _add_model(predict, _run_predict)

    video = commands.add_parser("video", help="follow the faces in a video: annotated copy, table")
    video.add_argument("video", metavar="VIDEO", type=Path)
    video.add_argument("--out", metavar="MP4", type=_want(".mp4"), help="write a copy with boxes and labels")
    video.add_argument(
        "--table", metavar="CSV", type=_want(".csv", ".parquet"), help="write a row per face and frame"
    )
    video.add_argument("--blur", action="store_true", help="hide the faces in the copy")
    _add_model(video, _run_video)

    webcam = commands.add_parser("webcam", help="name the emotions of the faces before a camera")
    webcam.add_argument("--camera", metavar="N", type=_count, default=0, help="0, the default, is the first")
    webcam.add_argument("--out", metavar="MP4", type=_want(".mp4"), help="record, with boxes and labels")
    _add_model(webcam, _run_webcam)

    explain = commands.add_parser("explain", help="show what in a face speaks for an emotion (Grad-CAM)")
    explain.add_argument("image", metavar="IMAGE")
    explain.add_argument(
        "--out", metavar="PNG", type=_want(".png"), required=True, help="the figure to write"
    )
    explain.add_argument("--emotion", type=str.lower, help="the one to explain (default: the likeliest)")
    _add_model(explain, _run_explain)

    commands.add_parser("models", help="list the models at hand").set_defaults(run=_run_models)

    release = commands.add_parser("release", help="make a trained model ready for use")
    release.add_argument("dataset", metavar="DATASET", help="whose baseline is trained and evaluated")
    release.add_argument("name", metavar="NAME", type=_name, help="of the folder in models/release/")
    release.set_defaults(run=_run_release)


def _add_model(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int | None]) -> None:
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help=f"a name that `models` lists, or a folder (default: {DEFAULT_MODEL})",
    )
    parser.set_defaults(run=run, fail=parser.error)


def _want(*suffixes: str) -> Callable[[str], Path]:
    """Return a check that a file to write is named as what it will hold, before hours of work and not after."""

    def check(name: str) -> Path:
        if Path(name).suffix.lower() not in suffixes:
            raise argparse.ArgumentTypeError(
                f"expected a name that ends in {' or '.join(suffixes)}, found {name!r}"
            )
        return Path(name)

    return check


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected 0, 1, 2 ..., found {text!r}")
    return int(text)


def _name(text: str) -> str:
    # It names a folder that is replaced as a whole: `..` must never be one.
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", text):
        raise argparse.ArgumentTypeError(f"expected letters, digits, dots and hyphens, found {text!r}")
    return text


# The commands import what they need when they run; `predict` needs neither torch nor pandas.


class _Problems:
    """Tells problems as they come, one line each, and counts them."""

    def __init__(self):
        self.count = 0

    def add(self, problem: object) -> None:
        self.count += 1
        print(f"error: {problem}", file=sys.stderr, flush=True)


def _run_predict(options: argparse.Namespace) -> int:
    from fer_lib.cli_output import CsvPrinter, JsonPrinter, TextPrinter
    from fer_lib.images import read_image
    from fer_lib.recognizer import Recognizer

    recognizer, problems = Recognizer.load(options.model), _Problems()
    copies = _Copies(options.out) if options.out else None
    printer = (
        JsonPrinter() if options.json else CsvPrinter(recognizer.emotions) if options.csv else TextPrinter()
    )
    try:
        for source in _list_sources(options.images, problems):
            try:
                pixels = read_image(_read_stdin() if source == "-" else source)
                faces = recognizer(pixels)
            except MediaError as error:
                problems.add(error)
                continue
            printer.add(source, faces)
            if copies:
                copies.write(source, pixels, faces)
    finally:
        printer.close()
    return 1 if problems.count else 0


def _list_sources(names: list[str], problems: _Problems) -> Iterator[str]:
    from fer_lib.image_files import find_pictures

    for name in names:
        try:
            yield from ["-"] if name == "-" else map(str, find_pictures(name))
        except MediaError as error:
            problems.add(error)


def _read_stdin() -> io.BytesIO:
    stream = io.BytesIO(sys.stdin.buffer.read())
    stream.name = "stdin"
    return stream


class _Copies:
    """Annotated copies of pictures in one folder; a number keeps equal names apart."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._taken: set[str] = set()

    def write(self, source: str, pixels, faces) -> None:
        from PIL import Image

        from fer_lib.annotate import draw_faces
        from fer_lib.files import write_atomically

        stem = "stdin" if source == "-" else Path(source).stem
        name, number = f"{stem}_faces.png", 1
        while name in self._taken:
            number += 1
            name = f"{stem}_faces_{number}.png"
        self._taken.add(name)
        buffer = io.BytesIO()
        Image.fromarray(draw_faces(pixels, faces)).save(buffer, "png")
        write_atomically(self._folder / name, buffer.getvalue())


def _run_video(options: argparse.Namespace) -> int:
    if not (options.out or options.table):
        options.fail("expected --out, --table or both: there is nothing to write")
    if options.blur and not options.out:
        options.fail("--blur hides faces in the annotated copy: it needs --out")
    from tqdm import tqdm

    from fer_lib.recognizer import Recognizer
    from fer_lib.video import analyse_video, write_table

    recognizer, problems = Recognizer.load(options.model), _Problems()
    layout = "{l_bar}{bar}| {elapsed}<{remaining}"
    with tqdm(total=1.0, desc=options.video.name, bar_format=layout, disable=None) as bar:
        result = analyse_video(
            recognizer,
            options.video,
            options.out,
            blur=options.blur,
            progress=lambda done: bar.update(done - bar.n),
        )
    if options.table:
        write_table(result.table, options.table)
    for line in _summarise_video(result):
        print(line)
    if options.out:
        print(f"video: {options.out}")
    if options.table:
        print(f"table: {options.table} ({len(result.table):,} rows)")
    for problem in result.problems:
        problems.add(f"{options.video}: {problem}")
    if problems.count:
        print("what could be read is written all the same", file=sys.stderr)
    return 1 if problems.count else 0


def _summarise_video(result) -> Iterator[str]:
    """Yield lines on a `VideoResult`: the frames, and for each face when it was seen and what it showed most."""
    info, table = result.info, result.table
    yield f"{result.n_frames:,} frames of {info.width} x {info.height} pixels, {info.fps:.3g} a second"
    if not len(table):
        yield "no face found"
    tracks = sorted(table.groupby("track"), key=lambda pair: -len(pair[1]))
    for number, rows in tracks[:MAX_LISTED]:
        shares = rows["label"].value_counts(normalize=True)
        when = f"{rows['time'].min():.1f} to {rows['time'].max():.1f} s"
        yield f"  #{number}  {when}  {shares.index[0]} in {100 * shares.iloc[0]:.0f} % of its frames"
    if len(tracks) > MAX_LISTED:
        yield f"  and {len(tracks) - MAX_LISTED} more that were seen for a shorter time"


def _run_webcam(options: argparse.Namespace) -> None:
    from fer_lib.recognizer import Recognizer
    from fer_lib.webcam import watch_camera

    watch_camera(Recognizer.load(options.model), options.camera, options.out)


def _run_explain(options: argparse.Namespace) -> None:
    from fer_lib.recognizer import Recognizer

    recognizer = Recognizer.load(options.model)
    if options.emotion and options.emotion not in recognizer.emotions:
        known = ", ".join(recognizer.emotions)
        raise ModelError(f"--emotion: expected one that the model knows, {known}, found {options.emotion!r}")
    found = recognizer(options.image)
    if not found:
        raise MediaError(
            f"{options.image}: no face found, so there is nothing to explain; use another picture"
        )
    from fer_lib.explain import compute_gradcam, overlay_heatmap
    from fer_lib.files import write_atomically
    from fer_lib.plots_explain import plot_explanations

    faces = found[:MAX_EXPLAINED]
    emotions = [options.emotion or face.label for face in faces]
    overlays = [
        overlay_heatmap(face.crop, compute_gradcam(recognizer.checkpoint, face.crop, emotion))
        for face, emotion in zip(faces, emotions, strict=True)
    ]
    buffer = io.BytesIO()
    plot_explanations(faces, emotions, overlays).savefig(buffer, format="png", dpi=144)
    write_atomically(options.out, buffer.getvalue())
    rest = f", the largest of {len(found)}" if len(found) > len(faces) else ""
    print(f"figure: {options.out} ({len(faces)} face{'s' if len(faces) > 1 else ''}{rest})")


def _run_models(options: argparse.Namespace) -> int:
    problems = _Problems()
    rows = [("name", "data set", "architecture", "emotions", "pixels", "test accuracy", "runs in")]
    for name, folder in list_checkpoints().items():
        try:
            rows.append((name, *_describe_model(folder)))
        except FerError as error:
            problems.add(error)
    if len(rows) == 1:
        raise ModelError("models/: no model found; `make repro` trains one")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 1 if problems.count else 0


def _describe_model(folder: Path) -> tuple[str, ...]:
    config = read_config(folder)
    return (
        str(config.get("dataset", "?")),
        str(config["architecture"]),
        str(len(config["emotions"])),
        str(config["preprocessing"]["image_size"]),
        _find_accuracy(config),
        "ONNX Runtime" if (folder / ONNX_NAME).is_file() else "PyTorch",
    )


def _find_accuracy(config: dict) -> str:
    """Return the test accuracy with its interval, of the model's config or of the stage that scored it."""
    from fer_lib.paths import ROOT, get_output_dirs
    from fer_lib.reporting import format_interval, read_metrics

    metrics = config.get("metrics", {})
    if "test.accuracy" not in metrics:
        try:
            metrics = read_metrics(get_output_dirs(str(config.get("dataset")), ROOT), "evaluation")
        except FerError:
            return "not measured"
        # Another training may have been scored since.
        if metrics.get("data_hash") != config.get("data_hash"):
            return "not measured"
    try:
        return format_interval(metrics, "test.accuracy", ".1%")
    except KeyError:
        return "not measured"


def _run_release(options: argparse.Namespace) -> None:
    from fer_lib.release import release_model

    print(f"release: {release_model(options.dataset, options.name)}")
