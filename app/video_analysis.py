"""Analyse a clip for the page Video and sum it up, all in memory."""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

import pandas as pd

from app.common import Identity
from demo_faces.clips import draw_clip
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.video import VideoResult, analyse_video, list_emotions, redraw_video
from fer_lib.inference.video_reader import VideoInfo
from fer_lib.inference.video_writer import VideoWriter

MAX_MINUTES = 10
"""Longer videos are refused: the file and the result are kept in memory."""

REDRAW_SECONDS = 0.2
"""The progress bar moves so often; every move also is a chance for `Cancel` to take effect."""

DEMO_FPS, DEMO_SECONDS, DEMO_PEOPLE = 30, 5, 2


@dataclass
class Analysis:
    """A video, and what was found in it. All is in memory."""

    name: str
    """Of the file."""
    file: BinaryIO
    model: Identity
    """Which model analyses it. The model itself would stay in memory as long as the result."""
    is_drawn: bool = False
    """Whether its faces are: it is the demo clip."""
    result: VideoResult | None = None
    seconds: float = 0.0
    """That the analysis took."""
    copies: dict[bool, bytes] = field(default_factory=dict)
    """Annotated, as MP4: with blurred faces (True) or without."""

    def run(self, recognizer: Recognizer, blur: bool, show_progress: Callable[[float, str], object]) -> None:
        """Find the faces and draw a copy, with or without `blur`; faces once found are only drawn.

        `recognizer` is that of `model`; a copy of faces once found does not need it.
        `show_progress` is called now and then with the share done, 0 to 1, and a sentence. Raises MediaError
        for what is no video, or one that is too long.
        """
        started, out = time.monotonic(), io.BytesIO()
        doing = "Analysing" if self.result is None else "Drawing"
        report = _limit_calls(doing, show_progress)
        if self.result is None:
            limit = MAX_MINUTES * 60
            found = analyse_video(recognizer, self.file, out, blur=blur, max_seconds=limit, progress=report)
            self.result, self.seconds = found, time.monotonic() - started
        else:
            redraw_video(self.file, self.result, out, blur=blur, progress=report)
        self.copies[blur] = out.getvalue()


def _limit_calls(doing: str, show_progress: Callable[[float, str], object]) -> Callable[[float], None]:
    """Return what calls `show_progress`, a few times a second at most."""
    started = shown = time.monotonic()

    def report(done: float) -> None:
        nonlocal shown
        if time.monotonic() - shown >= REDRAW_SECONDS:
            shown = time.monotonic()
            show_progress(min(1.0, max(0.0, done)), describe_progress(doing, done, shown - started))

    return report


def describe_progress(doing: str, done: float, elapsed: float) -> str:
    """Return how far it is, `done` from 0 to 1, and how long it will take after `elapsed` seconds."""
    if done < 0.02:  # too early to tell
        return f"{doing} …"
    left = elapsed * (1 - done) / done
    time_left = f"{left:.0f} s" if left < 90 else f"{left / 60:.0f} min"
    return f"{doing}: {done:.0%}, about {time_left} left"


def summarise_tracks(table: pd.DataFrame, fps: float) -> pd.DataFrame:
    """Return a row for each face that was followed, those seen longest first.

    The column of an emotion is the share of the face's frames in which it was named; these and `Unsure` sum
    to 1. `Confidence` is the mean over all its frames.
    """
    emotions = list_emotions(table)
    rows = []
    for track, seen in sorted(table.groupby("track"), key=lambda item: -len(item[1])):
        named = seen.loc[~seen["abstained"], "label"].astype(str)
        rows.append(
            {
                "Face": f"#{track}",
                "From": show_time(seen["time"].min()),
                "To": show_time(seen["time"].max()),
                "Seconds": len(seen) / fps,
                "Mostly": str(named.mode().iloc[0]) if len(named) else "–",
                "Confidence": float(seen["confidence"].mean()),
                "Unsure": float(seen["abstained"].mean()),
                **{name: (named == name).sum() / len(seen) for name in emotions},
            }
        )
    return pd.DataFrame(rows).round(2)


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
