"""The label orders and the positive / negative / neutral hierarchy, defined once.

Seven classes stand in FER2013's order; eight append contempt, so index i means the same emotion in both.
"""

import re
from difflib import get_close_matches

EMOTIONS_7 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
EMOTIONS_8 = (*EMOTIONS_7, "contempt")

GROUPS = ("positive", "negative", "neutral")
GROUP_OF = {
    "angry": "negative",
    "disgust": "negative",
    "fear": "negative",
    "happy": "positive",
    "sad": "negative",
    # Surprise has no fixed valence. The paper does not place it; FER work with three groups counts it
    # as positive more often than not, and so do we.
    "surprise": "positive",
    "neutral": "neutral",
    "contempt": "negative",
}

NO_GROUP = "other"
"""The group of a class that is no emotion: faces of one's own may have any classes."""

RARE_EMOTIONS = ("disgust", "fear")

SYNONYMS = {
    "anger": "angry",
    "disgusted": "disgust",
    **dict.fromkeys(("fearful", "afraid", "scared"), "fear"),
    **dict.fromkeys(("happiness", "joy", "joyful"), "happy"),
    "sadness": "sad",
    "surprised": "surprise",
    "normal": "neutral",
    "contemptuous": "contempt",
}
"""Other words for the same emotions, as data sets use them."""

VOTES = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
    "unknown",
    "nf",
)
"""What FER+'s annotators could vote for, in its file's order (Barsoum et al. 2016); `nf` is `not a face`."""


def get_emotions(n_classes: int) -> tuple[str, ...]:
    """Return the emotion names for 7 or 8 classes, in label order."""
    if n_classes not in (7, 8):
        raise ValueError(f"expected 7 or 8 classes, got {n_classes}")
    return EMOTIONS_7 if n_classes == 7 else EMOTIONS_8


def normalise_emotion(name: str) -> str:
    """Return an emotion's canonical name: `Anger` and `0_angry` are `angry`. Raises KeyError for none."""
    key = re.sub(r"^\d+[\W_]+", "", name.strip().lower())
    key = SYNONYMS.get(key, key)
    if key not in GROUP_OF:
        raise KeyError(name)
    return key


def suggest_emotion(name: str) -> str | None:
    """Return the emotion whose name, in any spelling, is nearest to `name`; None when none is near."""
    near = get_close_matches(name.strip().lower(), [*GROUP_OF, *SYNONYMS], n=1)
    return normalise_emotion(near[0]) if near else None


def get_group(name: str) -> str:
    """Return the group of a class: positive, negative, neutral or, where it is no emotion, `NO_GROUP`."""
    return GROUP_OF.get(name, NO_GROUP)


def get_group_indices(emotions: tuple[str, ...] | list[str]) -> list[int]:
    """Return, for each emotion, the index of its group in `GROUPS`."""
    return [GROUPS.index(GROUP_OF[name]) for name in emotions]


VOTE_OF_LABEL = tuple([*map(normalise_emotion, VOTES[:-2])].index(name) for name in EMOTIONS_8)
"""The position in `VOTES` of each of `EMOTIONS_8`; `unknown` and `nf` are no label's."""
