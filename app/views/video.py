"""Show the page Video: a clip in, the same clip with faces and emotions out. Nothing is written to disk."""

import io
from pathlib import PurePath
from typing import BinaryIO

import altair as alt
import pandas as pd
import streamlit as st

from app.common import (
    Identity,
    choose_model,
    drop_group,
    escape_markdown,
    identify,
    name_identity,
    offer_download,
    show_notice,
)
from app.drawn_faces import describe_drawn_faces
from app.timeline import show_timeline
from app.video_analysis import MAX_MINUTES, Analysis, draw_demo, summarise_tracks
from fer_lib.inference.annotate import UNSURE_COLOUR
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.video import VideoResult, list_emotions
from fer_lib.palette import choose_colours

TYPES = ["mp4", "m4v", "mov", "avi", "mkv", "webm"]

UPLOADER, FILE, STATE, BLUR = "video file", "video file kept", "video analysis", "video blur"


def show() -> None:
    """Show the page."""
    st.title("Video")
    st.write("Follows every face through a clip and shows how its expression changes.")
    show_notice()
    recognizer = choose_model()
    model = identify(recognizer)
    is_shown = st.file_uploader("A video", type=TYPES, key=UPLOADER, on_change=_keep_upload)
    upload = st.session_state.get(FILE)
    if upload is not None and not is_shown:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f":material/movie: {escape_markdown(upload.name)}")
            st.button("Remove", key="video file removed", on_click=_forget_all, icon=":material/close:")
    st.caption(f"Up to {MAX_MINUTES} minutes. The command line, python -m fer_lib video, has no limit.")
    blur = st.toggle(
        "Blur faces",
        key=BLUR,
        persist_state="session",
        help="After an analysis the video is only redrawn, in about half the time.",
    )
    with st.container(horizontal=True):
        if st.button("Analyse the video", disabled=upload is None) and upload:
            _start(upload.name, upload, model)
        if st.button("Try the demo clip"):
            _start("demo.mp4", io.BytesIO(_draw_demo()), model, is_drawn=True)
    analysis = st.session_state.get(STATE)
    if analysis is None:
        if upload is None:
            st.caption(
                "No video at hand? The demo clip lasts five seconds and shows nobody real. "
                f"{describe_drawn_faces()}"
            )
    elif analysis.result is None and analysis.model != model:
        _forget()  # what is half done is of no use to another model
        st.info("You have chosen another model. Press the button again to see its result.")
    else:
        if analysis.model != model:
            _offer_to_repeat(analysis, model)
        _run(analysis, recognizer, blur)
        _show_analysis(analysis, analysis.result, blur)


def _keep_upload() -> None:
    """Keep the upload: the browser forgets it when another page is opened."""
    _forget()
    st.session_state[FILE] = st.session_state[UPLOADER]


def _start(name: str, file: BinaryIO, model: Identity, is_drawn: bool = False) -> None:
    st.session_state[STATE] = Analysis(name, file, model, is_drawn)


def _forget() -> None:
    st.session_state.pop(STATE, None)


def _forget_all() -> None:
    """Forget the upload and its result, which holds it as well."""
    _forget()
    st.session_state.pop(FILE, None)


def _offer_to_repeat(analysis: Analysis, model: Identity) -> None:
    """Say that a result, which may have taken minutes, is not of the model that is chosen now."""
    st.info(
        f"This is the result of {escape_markdown(name_identity(analysis.model))}. You have chosen another "
        "model since."
    )
    st.button(
        "Analyse again with the chosen model",
        on_click=_start,
        args=(analysis.name, analysis.file, model, analysis.is_drawn),
        icon=":material/refresh:",
    )


def _cancel(analysis: Analysis, blur: bool) -> None:
    """Forget a video that is being analysed; show one that is redrawn as it was."""
    if analysis.result is None:
        _forget()
    else:
        st.session_state[BLUR] = not blur


def _run(analysis: Analysis, recognizer: Recognizer, blur: bool) -> None:
    """Do what is still to do, with a progress bar; what fails is forgotten, or it would start anew."""
    place = st.empty()  # always, or the video below moves and for a moment is seen twice
    if blur in analysis.copies:
        return
    with place.container():
        bar = st.progress(0.0, "Opening the video …")
        st.button("Cancel", on_click=_cancel, args=(analysis, blur), icon=":material/close:")
    try:
        analysis.run(recognizer, blur, bar.progress)
    except Exception:
        _forget()
        place.empty()
        raise
    place.empty()


@st.cache_data(show_spinner="Drawing the demo clip …")
def _draw_demo() -> bytes:
    return draw_demo()


def _show_analysis(analysis: Analysis, result: VideoResult, blur: bool) -> None:
    for problem in result.problems:
        st.warning(escape_markdown(problem))
    n_faces = result.table["track"].nunique()
    if not n_faces:
        st.info(
            "No face was found in this video. Faces should look towards the camera, in good light, and be at "
            "least a tenth of the frame's height."
        )
    st.video(analysis.copies[blur], alt=f"The video with its faces marked: {n_faces} in all")
    if analysis.is_drawn:
        st.caption(describe_drawn_faces())
    if n_faces:
        show_timeline(result.table, 0.0, _find_end(result), seeks=True)
        st.caption("Click the timeline to go there in the video. The numbers are those in the video.")
    _show_downloads(analysis, result, blur)
    if n_faces:
        _show_summary(summarise_tracks(result.table, result.info.fps), list_emotions(result.table))


def _find_end(result: VideoResult) -> float:
    """Return the seconds that the video is long, as far as it was read."""
    return max(float(result.table["time"].max()), (result.n_frames - 1) / result.info.fps, 0.1)


def _show_summary(summary: pd.DataFrame, emotions: list[str]) -> None:
    st.header("The faces")
    shares, colours = [*emotions, "Unsure"], [*choose_colours(emotions).values(), UNSURE_COLOUR]
    long = summary.melt("Face", shares, "Emotion", "Share")
    long["Order"] = long["Emotion"].map(shares.index)
    chart = (
        alt.Chart(long[long["Share"] > 0], height=alt.Step(32))
        .mark_bar()
        .encode(
            x=alt.X("Share:Q", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1]), title=None),
            y=alt.Y("Face:N", sort=summary["Face"].tolist(), title=None),
            color=alt.Color(
                "Emotion:N",
                scale=alt.Scale(domain=shares, range=colours),
                legend=alt.Legend(orient="bottom", columns=4, title=None),  # four fit on a telephone
            ),
            order="Order:Q",
            tooltip=["Face", "Emotion", alt.Tooltip("Share:Q", format=".0%")],
        )
    )
    st.altair_chart(chart, alt="Share of each emotion in the time for which each face is seen")
    percent = st.column_config.NumberColumn(format="percent")
    columns = dict.fromkeys(["Confidence", *shares], percent)
    columns["Seconds"] = st.column_config.NumberColumn(format="%.1f")
    st.dataframe(
        summary, hide_index=True, column_config=columns, alt="Each face and its share of each emotion"
    )
    st.caption(
        "Shares of the time for which a face is seen. *Unsure*: the model was "
        "not confident enough to name one. *Confidence* is the mean probability of the likeliest emotion."
    )


def _show_downloads(analysis: Analysis, result: VideoResult, blur: bool) -> None:
    stem = f"{PurePath(analysis.name).stem}_emotions"
    with st.container(horizontal=True):
        offer_download("Download the video (MP4)", analysis.copies[blur], f"{stem}.mp4", "video/mp4")
        content = drop_group(result.table).to_csv(index=False, float_format="%.4f").encode()
        offer_download("Download the table (CSV)", content, f"{stem}.csv", "text/csv")
        st.button("Remove the result", on_click=_forget, icon=":material/delete:")
    st.caption(
        f"{escape_markdown(analysis.name)}: {result.n_frames:,} frames in {analysis.seconds:.0f} s. "
        "The result has no sound. It stays in memory until you remove it or close the page."
    )


if __name__ == "__main__":
    show()
