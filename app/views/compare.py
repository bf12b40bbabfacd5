"""Show the page Compare: models on one face, two images, and thresholds for “unsure”."""

import pandas as pd
import streamlit as st

from app.common import (
    choose_model,
    escape_markdown,
    guard,
    read_stamps,
    show_notice,
    show_percent,
    show_probabilities,
)
from app.image_analysis import SHOWN_SIDE, Analysis, shrink
from app.image_source import (
    EXAMPLE,
    PHOTO,
    SOURCES,
    Photo,
    analyse_once,
    ask_for_image,
    choose_source,
    show_origin,
)
from app.model_comparison import (
    ask_model,
    build_curve_chart,
    describe_agreement,
    describe_difference,
    describe_threshold,
    has_saliency_map,
    list_candidates,
)
from fer_lib.inference.annotate import draw_faces, name_face
from fer_lib.inference.faces import Face
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.registry import find_checkpoint, list_variants

MODELS, IMAGES, THRESHOLD = KINDS = ("Models", "Two images", "Thresholds")

# Pixels on the page: of a card, of which two fit a desk, and of a face under its saliency map.
CARD_WIDTH, SALIENCY_WIDTH = 280, 168


def show() -> None:
    """Show the page."""
    st.title("Compare")
    with guard():  # whatever goes wrong, the notice is shown
        _show_chosen(choose_model())
    show_notice()


def _show_chosen(recognizer: Recognizer) -> None:
    kind = st.segmented_control(
        "What to compare", KINDS, default=MODELS, required=True, key="compare what", persist_state="session"
    )
    if kind == MODELS:
        _compare_models(recognizer)
    elif kind == IMAGES:
        _compare_images(recognizer)
    else:
        _compare_thresholds(recognizer)


def _compare_models(recognizer: Recognizer) -> None:
    st.write("Compares what several models answer for one face.")
    photo, analysis = _ask_and_analyse(PHOTO, recognizer)
    if photo is None or analysis is None:
        return
    number = _choose_face(photo, analysis)
    if number is None:
        return
    candidates = list_candidates()
    chosen = _choose_models(list(candidates))
    explained = any(has_saliency_map(*candidates[title]) for title in chosen) and st.toggle(
        "Show what speaks for each answer", key="compare explained", persist_state="session"
    )
    place = st.empty()
    answers = []
    with st.grid(min_column_width=CARD_WIDTH):
        for title in chosen:
            with st.container(border=True), guard():
                st.markdown(f"**{escape_markdown(title)}**")
                name, variant = candidates[title]
                with st.spinner("Asking the model …"):
                    stamps = read_stamps(find_checkpoint(name))
                    face, overlay = ask_model(
                        name, variant, stamps, photo.key, number, explained, _analysis=analysis
                    )
                answers.append(face)
                st.markdown(name_face(face))
                show_probabilities(face.probabilities)
                if overlay is not None:
                    caption = f"What speaks for {face.label}"
                    st.image(overlay, caption=caption, alt=caption, width=SALIENCY_WIDTH)
                elif explained:
                    st.caption("There is no saliency map of this model.")
    if answers:
        place.markdown(describe_agreement(answers))


def _choose_models(titles: list[str]) -> list[str]:
    """Return the titles of the models to ask: at first, all that were released."""
    released = [title for title in titles if "/" not in title]
    study = [title for title in titles if "/" in title]
    # Not a multiselect: its tags have white letters, which the light blue of the dark theme swallows.
    chosen = st.pills(
        "Models",
        released,
        selection_mode="multi",
        default=released,
        key="compared models",
        persist_state="session",
    )
    if study:
        with st.expander("Models of the study"):
            chosen += st.pills(
                "Those that `make results` trained",
                study,
                selection_mode="multi",
                key="compared models of the study",
                persist_state="session",
            )
    return chosen


def _compare_images(recognizer: Recognizer) -> None:
    st.write("Shows two images side by side, and a face of each.")
    faces = []
    for column, key, title in zip(
        st.columns(2), (PHOTO, "second photo"), ("First image", "Second image"), strict=True
    ):
        with column, guard():
            st.header(title)
            photo, analysis = _ask_and_analyse(key, recognizer)
            if photo is None or analysis is None:
                continue
            number = _choose_face(photo, analysis)
            if number is not None:
                faces.append(analysis.faces[number])
                st.markdown(f"**{escape_markdown(name_face(faces[-1]))}**")
                show_probabilities(faces[-1].probabilities)
    if len(faces) == 2:
        st.markdown(describe_difference(*faces))


def _ask_and_analyse(key: str, recognizer: Recognizer) -> tuple[Photo | None, Analysis | None]:
    """Return the image that was brought and what came of it, and show it with its faces."""
    chosen = st.session_state.get(f"{key} source")  # on the page Photo, which has one more
    default = chosen if chosen in SOURCES else EXAMPLE
    photo = ask_for_image(key, choose_source(f"compare {key}", default=default))
    if photo is None:
        return None, None
    analysis = analyse_once(key, photo, recognizer)
    marked = shrink(draw_faces(analysis.pixels, analysis.faces), SHOWN_SIDE)
    alt = f"{photo.name} with its faces marked"
    st.image(marked, caption=escape_markdown(photo.name), alt=alt, output_format="JPEG")
    show_origin(photo, analysis.faces)
    return photo, analysis


def _choose_face(photo: Photo, analysis: Analysis) -> int | None:
    """Return the index of the face that was chosen; None where the image has none."""
    faces: list[Face] = analysis.faces
    if not faces:
        st.info("No face was found in this image.", icon=":material/search_off:")
        return None
    if len(faces) == 1:
        return 0
    return st.selectbox(
        "Face",
        range(len(faces)),
        format_func=lambda index: name_face(faces[index]),
        key=f"compared face of {photo.key}",
        persist_state="session",
    )


def _compare_thresholds(recognizer: Recognizer) -> None:
    entry = list_variants(recognizer.config)[recognizer.variant]
    if "abstention" not in entry:
        st.info("What thresholds cost and bring is measured when a model is released. Choose a released one.")
        return
    curve: dict[str, list[float]] = entry["abstention"]
    own: float = entry["abstain_below"]
    judge = "the annotators' majority" if entry["judged_by"] == "majority" else "the data set's labels"
    st.write(
        "Under a threshold of confidence a model names no emotion: it is “unsure”. A higher threshold makes "
        "fewer mistakes and leaves more faces without an answer."
    )
    threshold: float = st.select_slider(
        "Threshold",
        curve["threshold"],
        value=own,
        format_func=show_percent,
        key=f"threshold of {recognizer.folder.name} {recognizer.variant}",
        persist_state="session",
    )
    now, usual = curve["threshold"].index(threshold), curve["threshold"].index(own)
    titles = {"Named (coverage)": "coverage", "Correct among them": "accuracy"}
    with st.container(horizontal=True):
        for title, key in titles.items():
            points = 100 * (curve[key][now] - curve[key][usual])
            st.metric(title, f"{curve[key][now]:.1%}", f"{points:+.1f} points" if now != usual else None)
    st.markdown(describe_threshold(curve, threshold))
    data = pd.concat(
        pd.DataFrame({"threshold": curve["threshold"], "share": curve[key], "what": title})
        for title, key in titles.items()
    )
    st.vega_lite_chart(data, build_curve_chart(threshold), height=320)
    st.caption(
        f"Measured on the validation faces of {entry['dataset']}, judged by {judge}. The release uses "
        f"{show_percent(own)}; this page changes nothing elsewhere. On other photographs expect less."
    )


if __name__ == "__main__":
    show()
