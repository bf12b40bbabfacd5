"""Give each emotion one colour, in figures, annotated images and the app.

Not in `labels`, on which trainings depend: a colour retrains nothing.
"""

import itertools
from collections.abc import Iterable

EMOTION_COLOURS = {
    "angry": "#D55E00",
    "disgust": "#009E73",
    "fear": "#AA4499",
    "happy": "#E69F00",
    "sad": "#0072B2",
    "surprise": "#56B4E9",
    "neutral": "#7A7A7A",
    "contempt": "#882255",
}
"""Hex, told apart by colour-blind readers (after Okabe and Ito 2008, and Tol 2021)."""


def choose_colours(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each class: an emotion's own, and for other classes in turn those that are left."""
    names = tuple(names)
    taken = {EMOTION_COLOURS[name] for name in names if name in EMOTION_COLOURS}
    left = itertools.cycle([colour for colour in EMOTION_COLOURS.values() if colour not in taken] or taken)
    return {name: EMOTION_COLOURS.get(name) or next(left) for name in names}
