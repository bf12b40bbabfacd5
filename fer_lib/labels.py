"""The label orders and the positive / negative / neutral hierarchy, defined once.

Seven classes stand in FER2013's order; eight append contempt, so index i means the same emotion in both.
"""

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

RARE_EMOTIONS = ("disgust", "fear")
COMMON_EMOTIONS = ("happy", "neutral")

SYNONYMS = {
    "anger": "angry",
    "disgusted": "disgust",
    "fearful": "fear",
    "happiness": "happy",
    "sadness": "sad",
    "surprised": "surprise",
}
"""Other spellings of the same emotions, as data sets and FER+ use them."""

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
    """Return the canonical name of an emotion: `Anger` and `anger` are `angry`. Raises KeyError otherwise."""
    key = name.strip().lower()
    key = SYNONYMS.get(key, key)
    if key not in GROUP_OF:
        raise KeyError(name)
    return key


def get_group_indices(emotions: tuple[str, ...] | list[str]) -> list[int]:
    """Return, for each emotion, the index of its group in `GROUPS`."""
    return [GROUPS.index(GROUP_OF[name]) for name in emotions]


VOTE_OF_LABEL = tuple([*map(normalise_emotion, VOTES[:-2])].index(name) for name in EMOTIONS_8)
"""The position in `VOTES` of each of `EMOTIONS_8`; `unknown` and `nf` are no label's."""
