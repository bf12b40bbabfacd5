"""Show the page Live: the camera's image with faces and emotions, on this computer alone."""

from functools import partial
from typing import Any

import streamlit as st

from app.common import choose_model, show_probabilities
from app.live_stream import CAMERA_FPS, LiveStream, keep_newest_frames_only
from fer_lib.data.images import read_image
from fer_lib.inference.annotate import draw_faces, name_face
from fer_lib.inference.recognizer import Recognizer

KEY = "live camera"

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
    recognizer = choose_model()
    with st.container(horizontal=True):
        blur = st.toggle("Blur faces")
        snapshots = st.toggle("Use snapshots instead", help="Single images, where live video does not work")
    if not snapshots:
        try:
            import streamlit_webrtc
        except ImportError:
            st.warning(
                "Live video needs the package streamlit-webrtc, which is not installed: `make env` installs "
                "it. Until then you can take snapshots."
            )
        else:
            _show_stream(streamlit_webrtc, recognizer, blur)
            return
    _show_snapshots(recognizer, blur)


def _show_stream(streamlit_webrtc: Any, recognizer: Recognizer, blur: bool) -> None:
    keep_newest_frames_only(streamlit_webrtc.relay.get_global_relay())
    context = streamlit_webrtc.webrtc_streamer(
        KEY,
        mode=streamlit_webrtc.WebRtcMode.SENDRECV,
        rtc_configuration=NO_SERVERS,
        media_stream_constraints=CAMERA,
        video_processor_factory=partial(LiveStream, recognizer, blur),
        async_processing=True,
        sendback_audio=False,
        translations=TEXTS,
    )
    stream = context.video_processor
    if stream is not None:  # the factory is asked once per stream, the sidebar may change at any time
        stream.configure(recognizer, blur)
    if context.state.playing and stream is not None:
        _show_status(stream)
    elif context.state.signalling:
        st.info("Connecting to the camera …")
    else:
        st.info(
            "The camera is off. Press *Start the camera* and allow its use when the browser asks. Its "
            "images go from the browser to this app on the same computer, and are forgotten at once."
        )
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
def _show_status(stream: LiveStream) -> None:
    """Say, once a second, that the camera is on and how fast it goes."""
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


def _show_snapshots(recognizer: Recognizer, blur: bool) -> None:
    st.write("Take a photo; it is analysed on this computer, in memory, and not kept.")
    photo = st.camera_input("Snapshot")
    if photo is None:
        return
    pixels = read_image(photo)
    faces = recognizer(pixels)
    if not faces:
        st.info("No face was found. Look at the camera, with light on your face, and come a little closer.")
    caption = f"{len(faces)} {'face' if len(faces) == 1 else 'faces'} found"
    st.image(draw_faces(pixels, faces, blur=blur), caption=caption, alt=caption)
    for number, face in enumerate(faces, start=1):
        st.markdown(f"**Face {number}: {name_face(face)}**")
        show_probabilities(face.probabilities)


if __name__ == "__main__":
    show()
