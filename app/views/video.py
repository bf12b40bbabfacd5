"""Show the page Video: a clip in, the same clip with faces and emotions out. Nothing is written to disk."""

import io
from pathlib import PurePath

import streamlit as st

from app.common import choose_model, escape_markdown, offer_download
from app.video_analysis import MAX_MINUTES, Analysis, Request, analyse, draw_demo, summarise_tracks

TYPES = ["mp4", "m4v", "mov", "avi", "mkv", "webm"]

STATE = "video page"


def show() -> None:
    """Show the page."""
    st.title("Video")
    st.write("Follows every face through a clip and shows how its expression changes.")
    recognizer = choose_model()
    upload = st.file_uploader("A video", type=TYPES)
    upload_id = upload.file_id if upload else None
    st.caption(
        f"Up to {MAX_MINUTES} minutes. The command line has no limit: "
        "`python -m fer_lib video CLIP.mp4 --out OUT.mp4 --table OUT.csv`"
    )
    blur = st.toggle("Blur faces in the result")
    with st.container(horizontal=True):
        if st.button("Analyse the video", type="primary", disabled=upload is None):
            _start(Request(False, upload_id, recognizer, blur))
        if st.button("Try the demo clip"):
            _start(Request(True, upload_id, recognizer, blur))
    request, analysis = st.session_state.get(STATE, (None, None))
    if request is None:
        if upload is None:
            st.caption("No video at hand? The demo clip shows drawn faces, nobody's, for five seconds.")
        return
    if request != Request(request.demo, upload_id, recognizer, blur):
        _forget()  # another upload, model or blur: the result would not be theirs
        st.info("You have changed the video or a setting. Press the button again to see the result.")
        return
    _show_analysis(analysis or _run(request, upload))


def _start(request: Request) -> None:
    st.session_state[STATE] = (request, None)


def _forget() -> None:
    st.session_state.pop(STATE, None)


def _run(request: Request, upload) -> Analysis:
    """Analyse with a progress bar, and keep the result; what fails is forgotten, or it would start anew."""
    place = st.empty()
    with place.container():
        bar = st.progress(0.0, "Opening the video …")
        st.button("Cancel", on_click=_forget, icon=":material/close:")
    try:
        if request.demo:
            analysis = analyse(request, "demo.mp4", io.BytesIO(_draw_demo()), bar.progress)
        else:
            analysis = analyse(request, upload.name, upload, bar.progress)
    except Exception:
        _forget()
        place.empty()
        raise
    place.empty()
    st.session_state[STATE] = (request, analysis)
    return analysis


@st.cache_data(show_spinner="Drawing the demo clip …")
def _draw_demo() -> bytes:
    return draw_demo()


def _show_analysis(analysis: Analysis) -> None:
    for problem in analysis.result.problems:
        st.warning(escape_markdown(problem))
    table = analysis.result.table
    n_faces = table["track"].nunique()
    if not n_faces:
        st.info(
            "No face was found in this video. Faces should look towards the camera, in good light, and be at "
            "least a tenth of the frame's height."
        )
    st.video(analysis.video, alt=f"The video with its faces marked: {n_faces} in all")
    _show_downloads(analysis)
    if not n_faces:
        return
    st.subheader("Emotions over time")
    from fer_lib.reporting.figures.video import plot_timeline

    st.pyplot(plot_timeline(table), alt="Probability of each emotion over time, a row for each face")
    st.caption("A row for each face, with the number that it has in the video.")
    st.subheader("The faces")
    st.dataframe(summarise_tracks(table), hide_index=True, alt="Each face and its most frequent emotion")
    st.caption(
        "*Mostly* is the emotion named most often, *unsure* the share of frames in which the model was not "
        "confident enough to name one."
    )


def _show_downloads(analysis: Analysis) -> None:
    stem = f"{PurePath(analysis.name).stem}_emotions"
    with st.container(horizontal=True):
        offer_download("Download the video (MP4)", analysis.video, f"{stem}.mp4", "video/mp4")
        content = analysis.result.table.to_csv(index=False, float_format="%.4f").encode()
        offer_download("Download the table (CSV)", content, f"{stem}.csv", "text/csv")
    st.caption(
        f"{escape_markdown(analysis.name)}: {analysis.result.n_frames:,} frames in {analysis.seconds:.0f} s. "
        "The result has no sound. It stays in memory until you leave or change something."
    )


if __name__ == "__main__":
    show()
