"""Ask several models about one face, and read what thresholds cost and bring, for the page Compare."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import streamlit as st

from app.common import Stamps, name_model, show_percent
from app.image_analysis import Analysis
from app.saliency import explain
from fer_lib.data.detector import Detection
from fer_lib.inference.faces import Face
from fer_lib.inference.recognizer import Recognizer
from fer_lib.inference.registry import find_checkpoint, list_checkpoints, list_variants
from fer_lib.models.checkpoints import read_config
from fer_lib.palette import EMOTION_COLOURS
from fer_lib.wording import join_words

MAX_ANSWERS = 256
"""Kept for each visitor; one takes some 100 kB."""


def list_candidates() -> dict[str, tuple[str, str]]:
    """Return title to name and variant of every model at hand, the released ones first."""
    candidates = {}
    for name, folder in list_checkpoints().items():
        variants = list_variants(read_config(folder))
        for variant in variants:
            candidates[name_model(name, variant if len(variants) > 1 else "")] = name, variant
    return candidates


def has_saliency_map(model: str, variant: str) -> bool:
    """Return whether a variant has a saliency map: `Recognizer.why_unexplained`, without loading it."""
    if not find_spec("torch"):
        return False
    entry = list_variants(read_config(find_checkpoint(model)))[variant]
    return len(entry.get("members", [variant])) == 1


@st.cache_data(show_spinner=False, max_entries=MAX_ANSWERS, scope="session")
def ask_model(
    model: str, variant: str, stamps: Stamps, photo: str, number: int, explained: bool, _analysis: Analysis
) -> tuple[Face, np.ndarray | None]:
    """Return what a model predicts for a face, and the face under its saliency map, uint8 (S, S, 3).

    stamps: of the model's files.   photo, number: which face `_analysis` found in which image.   The map is
    None where it was not wanted, or where the model has none. Raises ModelError when it cannot be loaded.
    """
    recognizer = Recognizer(model, variant=variant)
    found = _analysis.faces[number]
    detection = Detection(found.box, found.landmarks, found.detection_score, found.turned)
    (face,) = recognizer.recognize(_analysis.pixels, [detection])
    if not explained or recognizer.why_unexplained:
        return face, None
    return face, explain(recognizer, face.crop, face.label)[1]


def describe_agreement(faces: Sequence[Face]) -> str:
    """Return a sentence on how many models name which emotion."""
    answers = ["unsure" if face.abstained else face.label for face in faces]
    counts = {answer: answers.count(answer) for answer in dict.fromkeys(answers)}
    if len(counts) == 1:
        return f"All {len(faces)} answer {answers[0]}." if len(faces) > 1 else f"It answers {answers[0]}."
    parts = [
        f"{n} {'answers' if n == 1 else 'answer'} {answer}"
        for answer, n in sorted(counts.items(), key=lambda item: -item[1])
    ]
    return f"Of {len(faces)} models, {join_words(parts)}."


def describe_difference(left: Face, right: Face) -> str:
    """Return a sentence on the emotion in which two faces differ most."""
    shared = [emotion for emotion in left.probabilities if emotion in right.probabilities]
    gaps = {emotion: right.probabilities[emotion] - left.probabilities[emotion] for emotion in shared}
    most = max(gaps, key=lambda emotion: abs(gaps[emotion]))
    first, second = (show_percent(face.probabilities[most]) for face in (left, right))
    return f"They differ most in {most}: {first} in the first image, {second} in the second."


def describe_threshold(curve: dict[str, list[float]], threshold: float) -> str:
    """Return in whole faces what a threshold costs and brings; `curve` is a variant's `abstention`."""
    point = curve["threshold"].index(threshold)
    n_answered = round(1000 * curve["coverage"][point])
    n_correct = round(n_answered * curve["accuracy"][point])
    return (
        f"Of 1,000 faces it names an emotion in {n_answered:,}, {n_correct:,} of them correctly. "
        f"It is unsure of {1000 - n_answered:,}."
    )


def build_curve_chart(threshold: float) -> dict[str, Any]:
    """Return the Vega-Lite chart of coverage and accuracy by threshold, with a line at the one chosen.

    Its data has the columns threshold, share and what.
    """
    x = {"field": "threshold", "type": "quantitative", "title": "Threshold", "axis": {"format": "%"}}
    y = {"field": "share", "type": "quantitative", "title": None, "axis": {"format": "%"}}
    colour = {
        "field": "what",
        "type": "nominal",
        "scale": {"range": [EMOTION_COLOURS["angry"], EMOTION_COLOURS["sad"]]},  # seen on white and on black
        "legend": {"orient": "bottom", "title": None},
    }
    tooltip = [{"field": "what", "title": "Line"}, x, {**y, "title": "Share", "format": ".1%"}]
    lines = {
        "mark": {"type": "line", "point": True},
        "encoding": {"x": x, "y": y, "color": colour, "tooltip": tooltip},
    }
    chosen = {
        "mark": {"type": "rule", "strokeDash": [4, 4], "color": EMOTION_COLOURS["neutral"], "aria": False},
        "encoding": {"x": {"datum": threshold}},
    }
    return {"layer": [lines, chosen]}
