"""Show the page Photo: an image in, its faces with their emotions out. Nothing is written to disk."""

import io
from dataclasses import dataclass
from pathlib import PurePath
from typing import BinaryIO

import cv2
import numpy as np
import pandas as pd
import streamlit as st
from PIL import Image

from app.common import choose_model, escape_markdown, guard, offer_download, show_percent, show_probabilities
from demo_faces.clips import draw_scene
from fer_lib.data.detector import SMALLEST_FACE
from fer_lib.data.image_files import SUFFIXES
from fer_lib.data.images import MAX_PIXELS, read_image
from fer_lib.inference.annotate import build_rows, draw_faces, name_face
from fer_lib.inference.recognizer import Face, Recognizer
from fer_lib.inference.tracking import TrackedFace

# Images of `MAX_PIXELS` are smaller as JPEG, WebP or AVIF.
MAX_MEGABYTES = 50

# Pixels a side at most: of the image on the page, which is narrower, and of a JPEG at all.
SHOWN_SIDE, JPEG_SIDE = 1600, 65_500

# So many faces are described at once, the rest when asked for.
CARDS = 12

# Pixels on the page; two images stand side by side on a telephone.
FACE_WIDTH, SALIENCY_WIDTH = 88, 168

# Name to the arguments of `draw_scene`.
EXAMPLES = {
    "One person": {"n_faces": 1, "width": 640, "height": 480},
    "Two people": {"n_faces": 2, "width": 800, "height": 500},
    "Seven people": {"n_faces": 7, "width": 1280, "height": 720},
}

STATE = "photo page"


@dataclass(frozen=True)
class Photo:
    """What was brought: `key` tells it from every other, `name` is shown, `source` is for `read_image`."""

    key: str
    name: str
    source: BinaryIO | np.ndarray


@dataclass(frozen=True)
class Analysis:
    """What came of an image."""

    pixels: np.ndarray
    """uint8 (H, W, 3) RGB."""
    faces: list[Face]
    """Numbered from 1 if there are several."""


def show() -> None:
    """Show the page."""
    st.title("Photo")
    st.write("Finds the faces in an image and names the expression of each.")
    recognizer = choose_model()
    photo = _ask_for_photo()
    if photo is None:
        st.session_state.pop(STATE, None)
        return
    analysis = _analyse_once(photo, recognizer)
    name = escape_markdown(photo.name)
    if not analysis.faces:
        st.info(
            f"No face was found in {name}. Try an image in which faces are turned to the camera, well lit, "
            f"and at least {SMALLEST_FACE} pixels wide.",
            icon=":material/search_off:",
        )
    caption = f"{name}: {_count(analysis.faces)}"
    _show_image(draw_faces(analysis.pixels, analysis.faces), caption)
    if analysis.faces:
        if turned := analysis.faces[0].turned:
            st.caption(f"Found after the image was turned by {turned} degrees, anticlockwise.")
        _show_faces(analysis.faces, recognizer)
        _show_explanation(analysis.faces, recognizer)
        _show_downloads(analysis, photo.name)


def _ask_for_photo() -> Photo | None:
    where = st.segmented_control(
        "Image from", ["A file", "The camera", "An example"], default="A file", required=True
    )
    if where == "An example":
        name = st.segmented_control("Example", list(EXAMPLES), default=next(iter(EXAMPLES)), required=True)
        return Photo(f"example {name}", name, draw_example(name))
    if where == "The camera":
        st.caption("Browsers give the camera only to pages on `localhost` or with `https`.")
        upload = st.camera_input("Take a photo", resolution="720p")
    else:
        upload = st.file_uploader(
            "An image",
            type=[suffix.removeprefix(".") for suffix in SUFFIXES],
            max_upload_size=MAX_MEGABYTES,
        )
        if upload is None:
            st.caption(
                f"Up to {MAX_MEGABYTES} MB and {MAX_PIXELS / 1e6:.0f} megapixels. "
                "No image at hand? Choose *An example*."
            )
    return None if upload is None else Photo(upload.file_id, upload.name, upload)


@st.cache_data(show_spinner="Drawing the example …")
def draw_example(name: str) -> np.ndarray:
    """Return one of `EXAMPLES`, uint8 (H, W, 3) RGB."""
    return draw_scene(**EXAMPLES[name])[0]


def _analyse_once(photo: Photo, recognizer: Recognizer) -> Analysis:
    """Return the analysis, kept for this visitor until another image or model is chosen."""
    key = (photo.key, recognizer)
    if st.session_state.get(STATE, (None,))[0] != key:
        st.session_state.pop(STATE, None)  # two large images need not be in memory at once
        with st.spinner("Looking for faces …"):
            st.session_state[STATE] = (key, analyse(photo.source, recognizer))
    return st.session_state[STATE][1]


def analyse(source: BinaryIO | np.ndarray, recognizer: Recognizer) -> Analysis:
    """Return an image and its faces, the largest first. Raises MediaError when it cannot be read."""
    if not isinstance(source, np.ndarray):
        source.seek(0)
    pixels = read_image(source)
    faces = recognizer(pixels)
    if len(faces) > 1:  # `draw_faces` writes the number of a track, which tells here whose card is whose
        faces = [TrackedFace(**vars(face), track=number) for number, face in enumerate(faces, start=1)]
    return Analysis(pixels, faces)


def _show_image(pixels: np.ndarray, caption: str) -> None:
    st.image(shrink(pixels, SHOWN_SIDE), caption=caption, alt=caption, output_format="JPEG")


def _show_faces(faces: list[Face], recognizer: Recognizer) -> None:
    st.header("The faces" if len(faces) > 1 else "The face")
    shown = faces
    if len(faces) > CARDS and not st.toggle(f"Describe all {len(faces)} faces"):
        shown = faces[:CARDS]
        st.caption(f"The {CARDS} largest are described here; the table to download has all.")
    st.caption("The small images are what the model sees of each face.")
    for first in range(0, len(shown), 2):  # row by row: a telephone stacks the columns of each
        for column, number in zip(st.columns(min(2, len(shown))), range(first, len(shown)), strict=False):
            with column:
                _show_card(shown[number], number + 1, recognizer.abstain_below)


def _show_card(face: Face, number: int, abstain_below: float) -> None:
    with st.container(border=True):
        with st.container(horizontal=True):
            st.image(face.crop, alt=f"Face {number} as the model sees it", width=FACE_WIDTH)
            with st.container(width="stretch"):
                st.markdown(f"**{escape_markdown(name_face(face))}**")
                st.caption(describe_face(face, abstain_below))
        show_probabilities(face.probabilities)


def describe_face(face: Face, abstain_below: float) -> str:
    """Return a sentence about a face; it is `unsure` under the confidence `abstain_below`."""
    if face.abstained and face.confidence >= abstain_below:
        return f"Which way up the face is stays in doubt. If it is upright as found, it is {face.label}."
    if face.abstained:
        return (
            f"The model names no emotion below {show_percent(abstain_below)}. "
            f"Its best guess is {face.label}, {show_percent(face.confidence)}."
        )
    return "A neutral expression." if face.group == "neutral" else f"A {face.group} expression."


def _show_explanation(faces: list[Face], recognizer: Recognizer) -> None:
    st.header("Why this answer?")
    if recognizer.why_unexplained:
        st.caption(f"No saliency map: {recognizer.why_unexplained}.")
        return
    if not st.toggle("Show which parts of a face speak for an emotion"):
        return
    with guard():
        numbers = range(len(faces))
        number = st.selectbox("Face", numbers, format_func=lambda index: name_face(faces[index]))
        face = faces[number]
        emotion = st.selectbox(
            "Emotion",
            recognizer.emotions,
            index=recognizer.emotions.index(face.label),
            key=f"emotion of {number}",
        )
        with st.spinner("Asking the network; the first time takes some seconds …"):
            saliency, overlay = explain(recognizer, face, emotion)
        with st.container(horizontal=True):
            alt = "The face as the model sees it"
            st.image(face.crop, caption="As the model sees it", alt=alt, width=SALIENCY_WIDTH)
            alt = f"The same face, brighter where it speaks for {emotion}"
            st.image(overlay, caption=f"What speaks for {emotion}", alt=alt, width=SALIENCY_WIDTH)
        if not saliency.any():
            st.info(f"Nothing in this face speaks for {emotion}.")
        st.caption(
            "The saliency map (HiResCAM, a Grad-CAM that weighs every place by itself) is yellow where the "
            "face speaks most for the emotion, grey where not at all. It is relative: it has a brightest "
            "place even when the emotion is unlikely."
        )


def explain(recognizer: Recognizer, face: Face, emotion: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the saliency map, float32 (S, S), and the face under it, uint8 (S, S, 3).

    Raises ModelError when the model's network is none that can be explained.
    """
    from fer_lib.analysis.explain import explain_face, overlay_saliency  # torch: only who asks waits for it

    saliency = explain_face(recognizer.checkpoint, face.crop, emotion)
    return saliency, overlay_saliency(face.crop, saliency)


def _show_downloads(analysis: Analysis, name: str) -> None:
    st.header("Take it with you")
    blur = st.toggle("Blur faces in the download")
    if blur:
        _show_image(draw_faces(analysis.pixels, analysis.faces, blur=True), "As it will be downloaded")
    stem = PurePath(name).stem
    with st.container(horizontal=True):
        offer_download(
            "Download the image (JPEG)",
            lambda: encode_jpeg(draw_faces(analysis.pixels, analysis.faces, blur)),
            f"{stem}_emotions.jpg",
            "image/jpeg",
        )
        csv = pd.DataFrame(build_rows(name, analysis.faces)).to_csv(index=False).encode()
        offer_download("Download the table (CSV)", csv, f"{stem}_emotions.csv", "text/csv")


def shrink(pixels: np.ndarray, side: int) -> np.ndarray:
    """Return an image, uint8 (H, W, 3), made no larger than `side` pixels a side."""
    scale = side / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    height, width = (max(1, round(length * scale)) for length in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def encode_jpeg(pixels: np.ndarray) -> bytes:
    """Return an image, uint8 (H, W, 3) RGB, as a JPEG without any of the original's metadata."""
    out = io.BytesIO()
    Image.fromarray(shrink(pixels, JPEG_SIDE)).save(out, "JPEG", quality=92)
    return out.getvalue()


def _count(faces: list[Face]) -> str:
    return "1 face" if len(faces) == 1 else f"{len(faces) or 'no'} faces"


if __name__ == "__main__":
    show()
