"""Turn a video into an annotated copy and a tidy table; of what is in memory only the table grows."""

import io
import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_lib.errors import MediaError
from fer_lib.files import write_atomically
from fer_lib.inference.annotate import draw_faces
from fer_lib.inference.baseline import Baseline
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.tracking import FaceHider, FrameAnalyser, TrackedFace
from fer_lib.inference.video_reader import VideoInfo, VideoReader, VideoSource, describe_seconds
from fer_lib.inference.video_writer import VideoWriter
from fer_lib.labels import GROUPS, NO_GROUP

COLUMN_TYPES = {
    "time": "float64",
    **dict.fromkeys(("frame", "track", "left", "top", "width", "height"), "int32"),
    "detection_score": "float32",
    "label": "category",
    "confidence": "float32",
    "group": "category",
    "abstained": "bool",
}
"""The first columns of a video's table; one for each emotion follows, its smoothed probability, float32.

`time` is in seconds since the first frame, `frame` counts from 0, `track` is the same number for the same
person, from 1, and the box is in pixels of the upright frame. Probabilities are renewed ten times a second.
"""

CHUNK = 1000
"""Rows that are held as Python objects, which take twenty times the space of a table's."""


@dataclass(frozen=True)
class VideoResult:
    """What was found in a video."""

    table: pd.DataFrame
    """One row per face and frame, in order of time; columns as `COLUMN_TYPES`."""
    info: VideoInfo
    n_frames: int
    """That were read."""
    problems: list[str]
    """Sentences for the user; none if all went well."""


def analyse_video(
    recognizer: Recognizer,
    source: VideoSource,
    out: VideoSource | None = None,
    *,
    blur: bool = False,
    max_seconds: float | None = None,
    baseline: Baseline | None = None,
    neutral_seconds: float = 0.0,
    progress: Callable[[float], object] | None = None,
) -> VideoResult:
    """Return the faces of a video, followed and classified in every frame.

    Parameters
    ----------
    source
        A path, or a binary file object that can seek.
    out
        Where to put a copy with boxes and labels, as H.264 in MP4 and without sound: a path ending in .mp4,
        or a binary file object that can seek.
    blur
        Hide the faces in the copy; one that is never found is not hidden.
    max_seconds
        Longer videos are refused; where the file does not say how long it is, the rest is left out.
    baseline, neutral_seconds
        As `FrameAnalyser`.
    progress
        Called with the share that is done, 0 to 1.

    Raises
    ------
    MediaError
        In a sentence, as `VideoReader`, and when `out` cannot be written; then no file is left. A damaged
        video raises nothing: it gives what could be read, and says so in `problems`.
    ModelError
        As `FrameAnalyser`.
    """
    with VideoReader(source) as reader:
        _check_length(reader, max_seconds)
        _check_target(source, out)
        analyser = FrameAnalyser(
            recognizer, reader.info.fps, baseline=baseline, neutral_seconds=neutral_seconds
        )
        hider = FaceHider() if blur else None
        rows: list[tuple] = []
        tables: list[pd.DataFrame] = []
        n_frames, problems = 0, []
        with nullcontext() if out is None else VideoWriter(out, reader.info) as writer:
            for time, frame in reader:
                if max_seconds is not None and time > max_seconds:
                    problems.append(
                        f"The video is longer than {describe_seconds(max_seconds)}; the rest was left out."
                    )
                    break
                faces = analyser(frame, time)
                rows += list_rows(time, n_frames, faces)
                if len(rows) >= CHUNK:
                    tables.append(tabulate(rows, recognizer.emotions))
                    rows = []
                if writer is not None:
                    shown = hider.add_lost(faces, time) if hider else faces
                    writer.write(draw_faces(frame, shown, blur=blur), time)
                n_frames += 1
                if progress is not None:
                    progress(reader.progress)
        if progress is not None:
            progress(1.0)
        table = pd.concat([*tables, tabulate(rows, recognizer.emotions)], ignore_index=True)
        return VideoResult(table, reader.info, n_frames, problems + reader.problems)


def redraw_video(
    source: VideoSource,
    result: VideoResult,
    out: VideoSource,
    *,
    blur: bool = False,
    progress: Callable[[float], object] | None = None,
) -> None:
    """Write another annotated copy of a video that was analysed, without looking for its faces again.

    result: what `analyse_video` returned for the same source. The other arguments and MediaError are its too.
    """
    faces_of = {frame: _restore_faces(rows) for frame, rows in result.table.groupby("frame")}
    hider = FaceHider() if blur else None
    with VideoReader(source) as reader, VideoWriter(out, reader.info) as writer:
        for number, (time, frame) in enumerate(itertools.islice(reader, result.n_frames)):
            faces = faces_of.get(number, [])
            shown = hider.add_lost(faces, time) if hider else faces
            writer.write(draw_faces(frame, shown, blur=blur), time)
            if progress is not None:
                progress(reader.progress)
    if progress is not None:
        progress(1.0)


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write a video's table as CSV or Parquet, by the path's suffix, in one step.

    Times are rounded to milliseconds, other fractions to four decimals. Raises MediaError for another suffix,
    and when the file cannot be written.
    """
    path = Path(path)
    floats = table.select_dtypes("float").columns
    rounded = table.astype(dict.fromkeys(floats, "float64"))
    rounded = rounded.round({name: 3 if name == "time" else 4 for name in floats})
    if path.suffix.lower() == ".csv":
        content = rounded.to_csv(index=False).encode()
    elif path.suffix.lower() == ".parquet":
        buffer = io.BytesIO()
        rounded.to_parquet(buffer, index=False)
        content = buffer.getvalue()
    else:
        raise MediaError(f"{path}: expected a table's name to end in .csv or .parquet; choose one of them")
    try:
        write_atomically(path, content)
    except OSError as error:
        raise MediaError(
            f"{path}: the table could not be written ({error.strerror}); check the folder and the free space"
        ) from None


def _check_length(reader: VideoReader, max_seconds: float | None) -> None:
    n_seconds = reader.info.n_seconds
    # A little more is let pass: who cuts a video to a minute gets one that ends with the next whole frame.
    if max_seconds is not None and n_seconds is not None and n_seconds > max_seconds + 0.5:
        raise MediaError(
            f"{reader.name}: the video is {describe_seconds(n_seconds)} long, at most "
            f"{describe_seconds(max_seconds)} are analysed here; cut it, or run `python -m fer_lib video`"
        )


def _check_target(source: VideoSource, out: VideoSource | None) -> None:
    if not isinstance(out, str | Path):
        return
    if Path(out).suffix.lower() != ".mp4":
        raise MediaError(f"{out}: expected a name that ends in .mp4; rename the result")
    if isinstance(source, str | Path) and Path(out).resolve() == Path(source).resolve():
        raise MediaError(f"{out}: the result would replace the video itself; choose another name")


def list_rows(time: float, frame: int, faces: Sequence[TrackedFace]) -> list[tuple]:
    """Return a row for each face of a frame, in the order of the table's columns."""
    return [
        (
            *(time, frame, face.track, *face.box, face.detection_score),
            *(face.label, face.confidence, face.group, face.abstained, *face.probabilities.values()),
        )
        for face in faces
    ]


def tabulate(rows: list[tuple], emotions: Sequence[str]) -> pd.DataFrame:
    """Return rows of `list_rows` as a table with the columns of `COLUMN_TYPES` and one for each emotion."""
    types: dict[str, Any] = {
        **COLUMN_TYPES,
        "label": pd.CategoricalDtype(list(emotions)),
        "group": pd.CategoricalDtype([*GROUPS, NO_GROUP]),
        **dict.fromkeys(emotions, "float32"),
    }
    return pd.DataFrame.from_records(rows, columns=list(types)).astype(types)


def list_emotions(table: pd.DataFrame) -> list[str]:
    """Return the classes of the model that made a video's table, in label order."""
    return [name for name in table.columns if name not in COLUMN_TYPES]


def _restore_faces(rows: pd.DataFrame) -> list[TrackedFace]:
    """Return the faces of a frame as its rows of the table tell, enough to draw them."""
    emotions = list_emotions(rows)
    return [
        TrackedFace(
            probabilities={name: row[name] for name in emotions},
            box=(row["left"], row["top"], row["width"], row["height"]),
            landmarks=np.zeros((5, 2), np.float32),
            turned=0,
            crop=np.zeros((1, 1), np.uint8),
            **{
                name: row[name]
                for name in ("label", "confidence", "group", "abstained", "detection_score", "track")
            },
        )
        for row in rows.to_dict("records")
    ]
