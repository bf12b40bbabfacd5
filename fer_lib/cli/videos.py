"""Follow faces in a video or before a camera: the commands `video` and `webcam`."""

import sys
import time
from pathlib import Path

import click

from fer_lib.cli.faces import load_model, model_options, neutral_option, read_baseline, report
from fer_lib.errors import MediaError


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

    recognizer, shown = load_model(model, variant), "{desc} {percentage:3.0f}%|{bar}| {elapsed} < {remaining}"
    baseline = read_baseline(recognizer, neutral)
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
        report(f"{video}: {problem}")
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

    analyser = FrameAnalyser(load_model(model, variant))
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
