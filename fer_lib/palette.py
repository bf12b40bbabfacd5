"""Give each emotion one colour, in figures, annotated images and the app.

Not in `labels`, on which trainings depend: a colour retrains nothing.
"""

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
