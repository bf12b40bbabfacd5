"""Show the page Live: the camera's image with faces and emotions, on this computer alone."""

from functools import partial
from typing import Any

import streamlit as st

from app.common import choose_model, offer_download, show_notice, show_probabilities
from app.image_analysis import count_faces
from app.live_recording import MAX_MEGABYTES, MAX_SECONDS, Recording
from app.live_stream import CAMERA_FPS, HISTORY_SECONDS, LiveStream, keep_newest_frames_only
from app.timeline import show_timeline
from app.video_analysis import show_time
from fer_lib.data.images import read_image
from fer_lib.inference.annotate import draw_faces, name_face
from fer_lib.inference.recognizer import Recognizer

KEY, RECORDING = "live camera", "live recording"

# Else streamlit-webrtc asks a public server for this computer's address, which localhost does not need.
NO_SERVERS: dict[str, list[str]] = {"iceServers": []}

CAMERA = {
    "video": {"width": {"ideal": 640}, "height": {"ideal": 480}, "frameRate": {"ideal": CAMERA_FPS}},
    "audio": False,
}

TEXTS = {"start": "Start the camera", "stop": "Stop the camera", "select_device": "Choose a camera"}


def show() -> None:
    """Show the page."""
    st.title("Live")
    st.write("Marks faces and their expressions in the image of this computer's camera.")
    show_notice()
    recognizer = choose_model()
    with st.container(horizontal=True):
        blur = st.toggle("Blur faces", key="live blur", persist_state="session")
        mirror = st.toggle("Mirror", True, key="live mirror", persist_state="session")
        snapshots = st.toggle(
            "Use snapshots instead",
            key="live snapshots",
            persist_state="session",
            help="Single images, where live video does not work",
        )
    if not snapshots:
        try:
            import streamlit_webrtc
        except ImportError:
            st.warning(
                "Live video needs the package streamlit-webrtc, which is not installed: `make env` installs "
                "it. Until then you can take snapshots."
            )
        else:
            _show_stream(streamlit_webrtc, recognizer, blur, mirror)
            return
    _show_snapshots(recognizer, blur)


def _show_stream(streamlit_webrtc: Any, recognizer: Recognizer, blur: bool, mirror: bool) -> None:
    keep_newest_frames_only(streamlit_webrtc.relay.get_global_relay())
    context = streamlit_webrtc.webrtc_streamer(
        KEY,
        mode=streamlit_webrtc.WebRtcMode.SENDRECV,
        rtc_configuration=NO_SERVERS,
        media_stream_constraints=CAMERA,
        video_processor_factory=partial(LiveStream, recognizer, blur, mirror),
        async_processing=True,
        sendback_audio=False,
        translations=TEXTS,
    )
    stream = context.video_processor
    if stream is not None:  # the factory is asked once per stream, the sidebar may change at any time
        stream.configure(recognizer, blur, mirror)
    if context.state.playing and stream is not None:
        _show_status(stream, _show_recorder(stream))
    elif context.state.signalling:
        st.info("Connecting to the camera …")
    else:
        st.info(
            "The camera is off. Press *Start the camera* and allow its use when the browser asks. Its "
            "images go from the browser to this app on the same computer. They are forgotten at once, "
            "unless you record them."
        )
        _show_recorder(None)
    with st.expander("If no image appears"):
        st.markdown(
            "- Browsers give the camera only to pages on `localhost` or with `https`. On a phone or another "
            "computer, open the app through one of these.\n"
            "- Another program may be using the camera, or its use was refused: look for the camera's symbol "
            "in the address bar.\n"
            "- A firewall or VPN may block the connection that live video uses. *Use snapshots instead* "
            "works without it."
        )


@st.fragment(run_every=1.0)
def _show_status(stream: LiveStream, recording: Recording | None) -> None:
    """Show, once a second, that the camera is on, how fast it goes, and the emotions of the last minute.

    recording: one that is running, if any.
    """
    if recording is not None:
        if not recording.is_running:
            st.rerun()  # it has reached its bound
        st.caption(
            f"Recording: {show_time(recording.seconds)} of {show_time(MAX_SECONDS)}, "
            f"{recording.megabytes:.1f} of {MAX_MEGABYTES} MB"
        )
    history = stream.build_history()
    if len(history):
        show_timeline(history, -HISTORY_SECONDS, 0.0, seeks=False)
    status = stream.status
    st.success("The camera is on.", icon=":material/videocam:")
    if status.failing:
        st.warning(
            "The newest frame could not be analysed; it is shown as it came, or blurred as a whole. If "
            "this stays so, choose another model, or stop and start the camera."
        )
    with st.container(horizontal=True):
        st.metric("Frames per second", f"{status.fps:.0f}" if status.fps else "–")
        st.metric("Per frame", f"{status.milliseconds:.0f} ms" if status.n_frames else "–")
        st.metric("Faces", status.n_faces)
    st.caption(
        f"{status.n_frames:,} frames analysed, {status.n_skipped:,} skipped so that the image is not late."
    )


def _show_recorder(stream: LiveStream | None) -> Recording | None:
    """Offer to record and to stop, and what was recorded; return the recording that is running, if any.

    stream: None when the camera is off; then a recording is at its end. It outlives the stream and the page.
    """
    recording: Recording | None = st.session_state.get(RECORDING)
    if recording is not None and stream is None:
        recording.stop()
    if recording is not None and recording.is_running:
        st.button("Stop recording", on_click=recording.stop, icon=":material/stop:")
        return recording
    if stream is not None:
        st.button(
            "Record",
            on_click=_start_recording,
            args=(stream,),
            icon=":material/fiber_manual_record:",
            help="This replaces the last recording." if recording else None,
        )
    if recording is None:
        st.caption(
            f"A recording holds what is shown, up to {MAX_SECONDS // 60} minutes or {MAX_MEGABYTES} MB. It "
            "stays in memory until you remove it or close the page."
        )
    elif recording.n_frames:
        _show_recording(recording)
    return None


def _start_recording(stream: LiveStream) -> None:
    st.session_state[RECORDING] = stream.record()


def _forget_recording() -> None:
    st.session_state.pop(RECORDING, None)


def _show_recording(recording: Recording) -> None:
    if recording.end:
        st.info(recording.end)
    with st.container(horizontal=True):
        offer_download("Download the video (MP4)", recording.get_video(), "live_emotions.mp4", "video/mp4")
        offer_download("Download the table (CSV)", recording.get_table(), "live_emotions.csv", "text/csv")
        st.button("Remove", on_click=_forget_recording, icon=":material/delete:")
    st.caption(
        f"Recorded: {show_time(recording.seconds)}, {recording.n_frames:,} frames, "
        f"{recording.megabytes:.1f} MB. It stays in memory until you remove it or close the page."
    )


def _show_snapshots(recognizer: Recognizer, blur: bool) -> None:
    st.write("Take a photo; it is analysed on this computer, in memory, and not kept.")
    photo = st.camera_input("Snapshot")
    if photo is None:
        return
    pixels = read_image(photo)
    faces = recognizer(pixels)
    if not faces:
        st.info("No face was found. Look at the camera, with light on your face, and come a little closer.")
    caption = f"{count_faces(faces)} found"
    st.image(draw_faces(pixels, faces, blur=blur), caption=caption, alt=caption)
    for number, face in enumerate(faces, start=1):
        st.markdown(f"**Face {number}: {name_face(face)}**")
        show_probabilities(face.probabilities)


if __name__ == "__main__":
    show()
