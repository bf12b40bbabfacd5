"""Show people's emotions over time, linked to the video on the page: a small component of our own."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from fer_lib.inference.video import list_emotions
from fer_lib.palette import choose_colours

MAX_ROWS = 6

MAX_POINTS = 400
"""Moments per row; a longer video is averaged into so many, more than a screen shows."""

MAX_GAP = 0.5
"""Seconds without the face, from which on its row shows a gap."""

HTML = """<div class="timeline">
<div class="legend"></div>
<div class="names"></div>
<div class="plot">
<div class="rows"></div><div class="hover" hidden></div><div class="cursor" hidden></div>
</div>
<div class="axis"></div><div class="readout"></div><div class="note"></div>
</div>"""

_draw = st.components.v2.component(
    "timeline",
    html=HTML,
    css=Path(__file__).with_suffix(".css").read_text(encoding="utf-8"),
    js=Path(__file__).with_suffix(".js").read_text(encoding="utf-8"),
)


def show_timeline(table: pd.DataFrame, start: float, end: float, seeks: bool) -> None:
    """Show the emotions of each person of a video's table, from `start` to `end` seconds.

    seeks: whether the timeline goes with the page's video: a click seeks there, and a line follows it.
    """
    label = "Emotions over time, and the place in the video" if seeks else "Emotions in the last minute"
    data = build_timeline(table) | {"start": start, "end": end, "seeks": seeks, "label": label}
    _draw(key=f"timeline {seeks}", data=data)


def build_timeline(table: pd.DataFrame) -> dict[str, Any]:
    """Return what is drawn: a row per person, of more than six those seen longest, in order of appearance.

    table: as `video.analyse_video` returns it. Each row has visits, lists of times in seconds and of an equal
    number of lists of probabilities in the order of `emotions`.
    """
    emotions = list_emotions(table)
    lives = table.groupby("track")["time"].agg(["count", "min"])
    shown = lives.sort_values(["count", "min"], ascending=[False, True])[:MAX_ROWS]
    shown = shown.sort_index().sort_values("min", kind="stable")
    n_left_out = len(lives) - len(shown)
    people = "person is" if n_left_out == 1 else "people are"
    return {
        "emotions": [{"name": name, "colour": colour} for name, colour in choose_colours(emotions).items()],
        "rows": [
            {"name": f"#{track}", "visits": _list_visits(table[table["track"] == track], emotions)}
            for track in shown.index
        ],
        "note": f"{n_left_out} more {people} not shown." if n_left_out else "",
    }


def _list_visits(rows: pd.DataFrame, emotions: list[str]) -> list[dict[str, list]]:
    """Return one person's times and probabilities, a new visit after each gap."""
    span = max(float(rows["time"].max() - rows["time"].min()), 1e-9)
    moments = np.floor((rows["time"] - rows["time"].min()) / span * MAX_POINTS)
    means = rows[["time", *emotions]].groupby(moments.to_numpy()).mean()
    # A video with few frames a second has no gap between any two of them.
    usual = float(means["time"].diff().median()) if len(means) > 1 else 0.0
    visits = (means["time"].diff() > max(MAX_GAP, 3 * usual)).cumsum()
    listed = []
    for _, visit in means.groupby(visits.to_numpy()):
        if len(visit) == 1:  # a single frame would have no width
            visit = pd.concat([visit, visit.assign(time=visit["time"] + 0.04)])
        listed.append(
            {
                "times": visit["time"].round(3).tolist(),
                "values": visit[emotions].astype(float).round(3).to_numpy().tolist(),
            }
        )
    return listed
