"""Analyse a clip for the page Video and sum it up, all in memory."""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import pandas as pd

from demo_faces.clips import draw_clip
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.video import VideoResult, analyse_video
from fer_lib.inference.video_reader import VideoInfo
from fer_lib.inference.video_writer import VideoWriter

MAX_MINUTES = 10
"""Longer videos are refused: the result is kept in memory until the page is left."""

REDRAW_SECONDS = 0.2
"""The progress bar moves so often; every move also is a chance for `Cancel` to take effect."""

DEMO_FPS, DEMO_SECONDS, DEMO_PEOPLE = 30, 5, 2


@dataclass(frozen=True)
class Request:
    """What was asked to be analysed, and how."""

    demo: bool
    """The demo clip, not the upload."""
    upload: str | None
    """Id of the file that lay in the page, if any."""
    recognizer: Recognizer
    blur: bool


@dataclass(frozen=True)
class Analysis:
    """What came of a request."""

    name: str
    """Of the file."""
    video: bytes
    """An MP4."""
    result: VideoResult
    seconds: float
    """That the analysis took."""


def analyse(
    request: Request, name: str, content: BinaryIO, show_progress: Callable[[float, str], object]
) -> Analysis:
    """Return the analysis of a video file; everything happens in memory.

    `show_progress` is called now and then with the share done, 0 to 1, and a sentence. Raises MediaError for
    what is no video, or one that is too long.
    """
    started = shown = time.monotonic()

    def report(done: float) -> None:
        nonlocal shown
        if time.monotonic() - shown >= REDRAW_SECONDS:
            shown = time.monotonic()
            show_progress(min(1.0, max(0.0, done)), describe_progress(done, shown - started))

    out = io.BytesIO()
    result = analyse_video(
        request.recognizer, content, out, blur=request.blur, max_seconds=MAX_MINUTES * 60, progress=report
    )
    return Analysis(name, out.getvalue(), result, time.monotonic() - started)


def describe_progress(done: float, elapsed: float) -> str:
    """Return how far it is, `done` from 0 to 1, and how long it will take after `elapsed` seconds."""
    if done < 0.02:  # too early to tell
        return "Analysing …"
    left = elapsed * (1 - done) / done
    time_left = f"{left:.0f} s" if left < 90 else f"{left / 60:.0f} min"
    return f"Analysing: {done:.0%}, about {time_left} left"


def summarise_tracks(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row of texts for each face that was followed, those seen longest first."""
    rows = []
    for track, seen in sorted(table.groupby("track"), key=lambda item: -len(item[1])):
        named = seen.loc[~seen["abstained"], "label"]
        label = str(named.mode().iloc[0]) if len(named) else "–"
        rows.append(
            {
                "Face": f"#{track}",
                "Seen": f"{show_time(seen['time'].min())} to {show_time(seen['time'].max())}",
                "Mostly": label,
                "Share of its frames": f"{(named == label).sum() / len(seen):.0%}" if len(named) else "–",
                "Unsure": f"{seen['abstained'].mean():.0%}",
            }
        )
    return pd.DataFrame(rows)


def show_time(seconds: float) -> str:
    """Return seconds as `m:ss`, rounded."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def draw_demo() -> bytes:
    """Return the demo clip as an MP4: drawn people who change their expressions."""
    out = io.BytesIO()
    frames = draw_clip(DEMO_FPS * DEMO_SECONDS, DEMO_PEOPLE)
    with VideoWriter(out, VideoInfo(640, 480, DEMO_FPS, DEMO_SECONDS)) as writer:
        for number, frame in enumerate(frames):
            writer.write(frame, number / DEMO_FPS)
    return out.getvalue()
