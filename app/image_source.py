"""Ask for an image, from a file, the clipboard, the camera or the examples, and keep it for the session."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import streamlit as st

from app.common import escape_markdown, identify
from app.drawn_faces import describe_drawn_faces
from app.image_analysis import Analysis, analyse, count_correct
from app.model_comparison import ask_model
from app.saliency import explain
from demo_faces.clips import PlacedFace, draw_scene
from fer_lib.data.image_files import SUFFIXES
from fer_lib.data.images import MAX_PIXELS
from fer_lib.inference.faces import Face
from fer_lib.inference.recognizer import Recognizer

MAX_MEGABYTES = 50
"""Images of `MAX_PIXELS` are smaller as JPEG, WebP or AVIF."""

TYPES = [suffix.removeprefix(".") for suffix in SUFFIXES]

FILE, CAMERA, EXAMPLE = SOURCES = ("A file", "The camera", "An example")

PHOTO = "photo"
"""Key of the image that the pages share: what Photo shows, Compare compares."""

EXAMPLES_DIR = Path(__file__).parent / "examples"

PHOTOGRAPHS = {
    "Eileen Collins": ("astronaut.jpg", "NASA, public domain; from the sample data of scikit-image"),
    "Grace Hopper": ("grace_hopper.jpg", "US Navy, public domain; from the sample data of matplotlib"),
}
"""Name to a file in `EXAMPLES_DIR`, whose README says more, and the credit shown under it."""

SCENES = {
    "Two drawn people": {"n_faces": 2, "width": 800, "height": 500},
    "Seven drawn people": {"n_faces": 7, "width": 1280, "height": 720},
}
"""Name to the arguments of `draw_scene`."""


@dataclass(frozen=True)
class Photo:
    """What was brought: `key` tells it from every other, `name` is shown, `source` is for `read_image`."""

    key: str
    name: str
    source: BinaryIO | bytes | np.ndarray = field(repr=False)
    credit: str = ""
    """Whose photograph it is, of an example."""
    drawn: tuple[PlacedFace, ...] = ()
    """The faces of an example that was drawn, with their true emotions."""


def choose_source(page: str, *more: str, default: str = FILE) -> str:
    """Return where the image comes from: one of `SOURCES`, or of the page's own `more`."""
    return st.segmented_control(
        "Image from",
        [*SOURCES, *more],
        default=default,
        required=True,
        key=f"{page} source",
        persist_state="session",
    )


def ask_for_image(key: str, source: str) -> Photo | None:
    """Return the image that was brought from one of `SOURCES`; None when there is none yet.

    The browser forgets an upload when another page is opened, so it is kept here.
    """
    if source == EXAMPLE:
        name = st.segmented_control(
            "Example",
            [*PHOTOGRAPHS, *SCENES],
            default=list(PHOTOGRAPHS)[key != PHOTO],
            required=True,
            wrap=True,
            key=f"{key} example",
            persist_state="session",
        )
        return load_example(name)
    slot, widget = f"{key} kept from {source}", f"{key} from {source}"
    if source == CAMERA:
        st.caption("Browsers give the camera only to pages of this computer or with https.")
        is_shown = st.camera_input(
            "Take a photo", key=widget, resolution="720p", on_change=_keep_upload, args=(slot, widget)
        )
    else:
        is_shown = st.file_uploader(
            "An image",
            type=TYPES,
            max_upload_size=MAX_MEGABYTES,
            key=widget,
            on_change=_keep_upload,
            args=(slot, widget),
        )
        with st.container():  # outside of one it would stick to the window's lower edge
            st.chat_input(
                "Or paste an image here and press Enter",
                key=f"{widget} pasted",
                accept_file=True,
                file_type=TYPES,
                max_upload_size=MAX_MEGABYTES,
                on_submit=_keep_pasted,
                args=(slot, f"{widget} pasted"),
            )
    photo = st.session_state.get(slot)
    if photo is None and source == FILE:
        st.caption(
            f"Up to {MAX_MEGABYTES} MB and {MAX_PIXELS / 1e6:.0f} megapixels. "
            f"No image at hand? Choose *{EXAMPLE}*."
        )
    elif photo is not None and (not is_shown or is_shown.file_id != photo.key):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f":material/image: {escape_markdown(photo.name)}")
            st.button("Remove", icon=":material/close:", on_click=_forget_image, args=(key, slot))
    return photo


def _keep_upload(slot: str, widget: str) -> None:
    upload = st.session_state[widget]
    if upload is None:
        st.session_state.pop(slot, None)
    else:
        st.session_state[slot] = Photo(upload.file_id, upload.name, upload)


def _keep_pasted(slot: str, widget: str) -> None:
    for upload in st.session_state[widget].files:
        st.session_state[slot] = Photo(upload.file_id, upload.name, upload)


def _forget_image(key: str, slot: str) -> None:
    """Forget an image and what was made of it, on whichever page."""
    st.session_state.pop(slot, None)
    forget_analysis(key)
    for answers in (ask_model, explain):
        answers.clear()


def load_example(name: str) -> Photo:
    """Return one of `PHOTOGRAPHS` or `SCENES`."""
    if name in PHOTOGRAPHS:
        file, credit = PHOTOGRAPHS[name]
        return Photo(f"example {name}", name, (EXAMPLES_DIR / file).read_bytes(), credit)
    pixels, drawn = _draw_example(name)
    return Photo(f"example {name}", name, pixels, drawn=tuple(drawn))


@st.cache_data(show_spinner="Drawing the example …")
def _draw_example(name: str) -> tuple[np.ndarray, list[PlacedFace]]:
    return draw_scene(**SCENES[name])


def analyse_once(key: str, photo: Photo, recognizer: Recognizer) -> Analysis:
    """Return the analysis of an image, kept for this visitor until another image or model is chosen.

    Raises MediaError when the image cannot be read.
    """
    slot, made_of = f"{key} analysis", (photo.key, identify(recognizer))
    if st.session_state.get(slot, (None,))[0] != made_of:
        forget_analysis(key)  # two large images need not be in memory at once
        with st.spinner("Looking for faces …"):
            st.session_state[slot] = (made_of, analyse(photo.source, recognizer))
    return st.session_state[slot][1]


def forget_analysis(key: str) -> None:
    """Forget what `analyse_once` keeps."""
    st.session_state.pop(f"{key} analysis", None)


def show_origin(photo: Photo, faces: list[Face]) -> None:
    """Show whose photograph an example is, or how well its drawn faces are recognised."""
    if photo.credit:
        st.caption(f"Photograph: {photo.credit}.")
    if photo.drawn:
        n_drawn, n_correct = len(photo.drawn), count_correct(photo.drawn, faces)
        n_unsure = sum(face.abstained for face in faces)
        unsure = f" and is unsure of {n_unsure}" if n_unsure else ""
        st.caption(
            f"{describe_drawn_faces()} Here the chosen model names {n_correct} of {n_drawn} expressions "
            f"correctly{unsure}, however confident it seems."
        )
