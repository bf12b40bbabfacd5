"""Show the page Photo: images in, their faces with their emotions out. Nothing is written to disk."""

from pathlib import PurePath

import numpy as np
import pandas as pd
import streamlit as st

from app.common import (
    choose_model,
    drop_group,
    escape_markdown,
    guard,
    offer_download,
    show_notice,
    show_percent,
    show_probabilities,
)
from app.gallery import show_gallery
from app.image_analysis import SHOWN_SIDE, Analysis, count_faces, encode_jpeg, shrink
from app.image_source import (
    PHOTO,
    Photo,
    analyse_once,
    ask_for_image,
    choose_source,
    forget_analysis,
    show_origin,
)
from app.saliency import explain, warm_up
from fer_lib.data.detector import SMALLEST_FACE
from fer_lib.inference.annotate import build_rows, draw_faces, name_face
from fer_lib.inference.faces import Face
from fer_lib.inference.recognizer import Recognizer
from fer_lib.labels import NO_GROUP

MANY = "Many files"

# So many faces are described at once, the rest when asked for.
CARDS = 12

# Pixels on the page; two images stand side by side on a telephone.
FACE_WIDTH, SALIENCY_WIDTH = 88, 168


def show() -> None:
    """Show the page."""
    st.title("Facial expressions", anchor=False)  # whose symbol would need a line on a telephone
    st.write(
        "Finds the faces in an image and names the expression of each. It cannot tell what a person feels. "
        "Images stay on this computer."
    )
    with guard():  # whatever goes wrong, the notice is shown
        _show_chosen(choose_model())
    show_notice()


def _show_chosen(recognizer: Recognizer) -> None:
    source = choose_source(PHOTO, MANY)
    if source == MANY:
        show_gallery(recognizer)
        return
    photo = ask_for_image(PHOTO, source)
    if photo is None:
        forget_analysis(PHOTO)
    else:
        _show_photo(photo, recognizer)


def _show_photo(photo: Photo, recognizer: Recognizer) -> None:
    analysis = analyse_once(PHOTO, photo, recognizer)
    if not analysis.faces:
        st.info(
            f"No face was found in {escape_markdown(photo.name)}. Try an image in which faces are turned to "
            f"the camera, well lit, and at least {SMALLEST_FACE} pixels wide.",
            icon=":material/search_off:",
        )
    _show_image(draw_faces(analysis.pixels, analysis.faces), f"{photo.name}: {count_faces(analysis.faces)}")
    show_origin(photo, analysis.faces)
    if not analysis.faces:
        return
    if turned := analysis.faces[0].turned:
        st.caption(f"Found after the image was turned by {turned} degrees, anticlockwise.")
    _show_faces(analysis.faces, recognizer)
    if not recognizer.why_unexplained:
        _show_explanation(photo, analysis.faces, recognizer)
    _show_downloads(analysis, photo.name)
    warm_up(recognizer)


def _show_image(pixels: np.ndarray, caption: str) -> None:
    shown = shrink(pixels, SHOWN_SIDE)
    st.image(shown, caption=escape_markdown(caption), alt=caption, output_format="JPEG")


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
    if face.label == "surprise":  # which `labels.GROUP_OF` calls positive for want of a place of its own
        return "An expression that may be positive or negative."
    if face.group == NO_GROUP:
        return ""
    return "A neutral expression." if face.group == "neutral" else f"A {face.group} expression."


def _show_explanation(photo: Photo, faces: list[Face], recognizer: Recognizer) -> None:
    st.header("Why this answer?")
    if not st.toggle(
        "Show which parts of a face speak for an emotion", key="photo explained", persist_state="session"
    ):
        return
    with guard():
        number = st.selectbox(
            "Face",
            range(len(faces)),
            format_func=lambda index: name_face(faces[index]),
            key=f"face of {photo.key}",
            persist_state="session",
        )
        face = faces[number]
        emotion = st.selectbox(
            "Emotion",
            recognizer.emotions,
            index=recognizer.emotions.index(face.label),
            key=f"emotion of {number} of {photo.key}",
            persist_state="session",
        )
        with st.spinner("Asking the network; the first time takes some seconds …"):
            saliency, overlay = explain(recognizer, face.crop, emotion)
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


def _show_downloads(analysis: Analysis, name: str) -> None:
    st.header("Take it with you")
    blur = st.toggle("Blur faces in the download", key="photo blurred", persist_state="session")
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
        table = drop_group(pd.DataFrame(build_rows(name, analysis.faces)))
        csv = table.to_csv(index=False).encode()
        offer_download("Download the table (CSV)", csv, f"{stem}_emotions.csv", "text/csv")


if __name__ == "__main__":
    show()
