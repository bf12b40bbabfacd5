"""Sample what a drawn face is made of: who it is, its action units, and how it is photographed.

Action units (AU) and the prototype of each emotion follow Ekman & Friesen, Facial Action Coding System
(1978) and the EMFACS prototypes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""In FER2013's order."""

ACTION_UNITS = (
    "au01",  # inner brow raiser
    "au02",  # outer brow raiser
    "au04",  # brow lowerer
    "au05",  # upper lid raiser
    "au06",  # cheek raiser
    "au07",  # lid tightener
    "au09",  # nose wrinkler
    "au12",  # lip corner puller
    "au15",  # lip corner depressor
    "au16",  # lower lip depressor
    "au17",  # chin raiser
    "au20",  # lip stretcher
    "au23",  # lip tightener
    "au25",  # lips part
    "au26",  # jaw drop
)

PROTOTYPES: dict[str, tuple[str, ...]] = {
    "angry": ("au04", "au05", "au07", "au23"),
    "disgust": ("au09", "au15", "au16"),
    "fear": ("au01", "au02", "au04", "au05", "au07", "au20", "au26"),
    "happy": ("au06", "au12"),
    "sad": ("au01", "au04", "au15"),
    "surprise": ("au01", "au02", "au05", "au26"),
    "neutral": (),
}

# Units that often accompany a prototype without belonging to it: (unit, probability, highest intensity).
COMPANIONS: dict[str, tuple[tuple[str, float, float], ...]] = {
    "happy": (("au25", 0.65, 1.0), ("au26", 0.15, 0.3)),
    "sad": (("au17", 0.5, 0.8),),
    "angry": (("au17", 0.3, 0.5), ("au09", 0.2, 0.35)),
    "disgust": (("au04", 0.4, 0.5), ("au17", 0.3, 0.5)),
    "surprise": (("au25", 0.5, 0.5),),
    "fear": (("au25", 0.5, 0.5),),
}

# Training split of FER2013 (Goodfellow et al. 2013), in the order of EMOTIONS.
FER2013_TRAIN_COUNTS = (3995, 436, 4097, 7215, 4830, 3171, 4965)

# A split is a range of identity ids; its share of the ids is its share of the faces.
SPLIT_IDENTITIES = {"train": range(400), "val": range(400, 450), "test": range(450, 500)}
N_IDENTITIES = 500
N_SKIN_TONES = 10

HAIR_STYLES = ("bald", "buzz", "short", "quiff", "curly", "afro", "fringe", "bob", "long", "bun", "headscarf")
HAIR_COLOURS = ("black", "dark brown", "brown", "auburn", "dark blond", "blond", "grey")
BEARDS = ("none", "stubble", "moustache", "full")
GLASSES = ("none", "glasses", "sunglasses")

# Weights of HAIR_STYLES for the least and the most masculine identity; those between are mixed.
_STYLE_WEIGHTS_FEMININE = (0.0, 0.02, 0.06, 0.04, 0.12, 0.08, 0.14, 0.17, 0.22, 0.1, 0.05)
_STYLE_WEIGHTS_MASCULINE = (0.13, 0.17, 0.3, 0.2, 0.1, 0.06, 0.02, 0.01, 0.01, 0.0, 0.0)
_BEARD_WEIGHTS = (0.5, 0.25, 0.08, 0.17)
_BEARDLESS, _CHILDISH = 0.6, 0.15  # masculinity and age from which on there may be a beard

# Roberts' R2 sequence: two additive recurrences that fill the unit square evenly (g is the plastic number).
# Class and split of face i come from it, so that even a small set keeps its class and split proportions.
_PLASTIC = 1.32471795724474602596
_R2_STEPS = np.array([1 / _PLASTIC, 1 / _PLASTIC**2])


@dataclass(frozen=True)
class Identity:
    """A person: what stays the same in every image of them.

    Names ending in `_scale` multiply the average anatomy; `age` and `masculinity` run 0..1 and only drive
    the drawing; `skin_tone` is a step of the Monk scale, 1 (lightest) to 10.
    """

    id: int
    skin_tone: int
    age: float
    masculinity: float
    face_width_scale: float
    jaw_width_scale: float
    chin_length: float
    eye_spacing_scale: float
    eye_size_scale: float
    eye_tilt: float
    nose_length_scale: float
    nose_width_scale: float
    lip_fullness_scale: float
    mouth_width_scale: float
    brow_thickness_scale: float
    brow_height: float
    iris: int
    hair_style: str
    hair_colour: str
    beard: str
    freckles: float
    texture_seed: int


@dataclass(frozen=True)
class FaceFactors:
    """Everything that generates one image.

    Parameters
    ----------
    identity, emotion
        Whom it shows, and which of `EMOTIONS`.
    aus
        Intensity 0..1 per action unit; a missing one is 0.
    asymmetry
        The image's right side shows (1 + asymmetry), the left (1 - asymmetry) of each intensity.
    gaze_x, gaze_y
        Where the eyes look: shares of their width.
    yaw, pitch, roll
        Degrees; positive turns the face to the image's right, up, and clockwise.
    light_azimuth, light_elevation
        Degrees; positive is from the image's right, and from above.
    light_strength
        1 is a well exposed face.
    glasses, mask
        What is worn; one of `GLASSES`.
    blur_sigma, noise_sigma
        Pixels of the final image; fraction of full scale.
    scale, shift_x, shift_y
        Factor of the head's size; fractions of the image's side.
    scene_seed
        Of backdrop, clothes and noise.
    """

    identity: Identity
    emotion: str
    aus: Mapping[str, float]
    asymmetry: float = 0.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    light_azimuth: float = 25.0
    light_elevation: float = 35.0
    light_strength: float = 1.0
    glasses: str = "none"
    mask: bool = False
    blur_sigma: float = 0.0
    noise_sigma: float = 0.0
    scale: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    scene_seed: int = 0

    def to_columns(self) -> dict[str, Any]:
        """Return the factors as flat scalar columns; the identity's id becomes `identity`."""
        columns = {f.name: getattr(self.identity, f.name) for f in fields(Identity)}
        columns["identity"] = columns.pop("id")
        for f in fields(self):
            if f.name not in ("identity", "aus"):
                columns[f.name] = getattr(self, f.name)
        return columns | {au: float(self.aus.get(au, 0.0)) for au in ACTION_UNITS}


def get_split(identity_id: int) -> str:
    """Return the split an identity belongs to."""
    return next(split for split, members in SPLIT_IDENTITIES.items() if identity_id in members)


def build_prototype(emotion: str, intensity: float = 1.0) -> dict[str, float]:
    """Return the action units of an emotion's prototype, all at one intensity (0..1)."""
    return dict.fromkeys(PROTOTYPES[emotion], intensity)


_PER_MASCULINITY = {
    "jaw_width_scale": 0.11,
    "chin_length": 0.03,
    "eye_size_scale": -0.11,
    "nose_width_scale": 0.12,
    "lip_fullness_scale": -0.22,
    "brow_thickness_scale": 0.5,
    "brow_height": 0.015,
}
"""How the anatomy's means move as masculinity goes from 0 to 1."""


@lru_cache(maxsize=N_IDENTITIES)
def sample_identity(seed: int, identity_id: int) -> Identity:
    """Return the person with this id; depends on (seed, identity_id) and nothing else."""
    # A third number keeps this stream apart from that of face number `identity_id`.
    rng = np.random.default_rng([seed, identity_id, 1])
    tone = identity_id % N_SKIN_TONES + 1  # every split holds every tone equally often
    masculinity = float(rng.beta(0.7, 0.7))
    age = float(rng.beta(1.4, 1.8))
    weights = np.asarray(_STYLE_WEIGHTS_FEMININE) * (1 - masculinity)
    weights += np.asarray(_STYLE_WEIGHTS_MASCULINE) * masculinity
    style = str(rng.choice(HAIR_STYLES, p=weights / weights.sum()))
    may_have_beard = masculinity > _BEARDLESS and age > _CHILDISH
    beard = str(rng.choice(BEARDS, p=_BEARD_WEIGHTS)) if may_have_beard else "none"

    def vary(sigma: float, mean: float = 1.0) -> float:
        return float(mean + sigma * np.clip(rng.standard_normal(), -2, 2))

    moved = {name: slope * masculinity for name, slope in _PER_MASCULINITY.items()}

    return Identity(
        id=identity_id,
        skin_tone=tone,
        age=age,
        masculinity=masculinity,
        face_width_scale=vary(0.045),
        jaw_width_scale=vary(0.05, 0.95 + moved["jaw_width_scale"]),
        chin_length=vary(0.03, moved["chin_length"]),
        eye_spacing_scale=vary(0.035),
        eye_size_scale=vary(0.06, 1.07 + moved["eye_size_scale"]),
        eye_tilt=vary(0.015, 0.0),
        nose_length_scale=vary(0.06),
        nose_width_scale=vary(0.1, 0.96 + moved["nose_width_scale"]),
        lip_fullness_scale=vary(0.13, 1.12 + moved["lip_fullness_scale"]),
        mouth_width_scale=vary(0.06),
        brow_thickness_scale=vary(0.16, 0.75 + moved["brow_thickness_scale"]),
        brow_height=vary(0.012, moved["brow_height"]),
        iris=_sample_iris(rng, tone),
        hair_style=style,
        hair_colour=_sample_hair_colour(rng, tone, age),
        beard=beard,
        freckles=float(rng.random() < 0.25) * float(rng.uniform(0.3, 1.0)) * float(tone <= 5),
        texture_seed=int(rng.integers(2**31)),
    )


def change_masculinity(identity: Identity, value: float) -> Identity:
    """Return the person with another masculinity, 0..1, and the anatomy and make-up that go with it.

    The hair's style stays. A beard goes where there would be none; none is added.
    """
    step = value - identity.masculinity
    moved = {name: getattr(identity, name) + slope * step for name, slope in _PER_MASCULINITY.items()}
    beard = identity.beard if value > _BEARDLESS else "none"
    return replace(identity, masculinity=value, beard=beard, **moved)


def change_age(identity: Identity, value: float) -> Identity:
    """Return the person at another age, 0..1: furrows, pouches and hairline, grey hair when old.

    A child's beard goes; none is added.
    """
    colour = "grey" if value > 0.75 else HAIR_COLOURS[1] if identity.hair_colour == "grey" else None
    beard = identity.beard if value > _CHILDISH else "none"
    return replace(identity, age=value, beard=beard, hair_colour=colour or identity.hair_colour)


def _sample_iris(rng: np.random.Generator, tone: int) -> int:
    """Return an index into the palette of irises, which runs from dark brown to light blue."""
    lightest = 5 if tone <= 4 else 3 if tone <= 6 else 2
    return int(rng.integers(lightest))


def _sample_hair_colour(rng: np.random.Generator, tone: int, age: float) -> str:
    if rng.random() < max(0.0, age - 0.55) * 2:
        return "grey"
    lightest = 6 if tone <= 3 else 4 if tone <= 5 else 2
    return HAIR_COLOURS[int(rng.integers(lightest))]


def sample_factors(seed: int, i: int) -> FaceFactors:
    """Return the factors of face `i` of the set drawn from `seed`; depends on these two numbers only."""
    rng = np.random.default_rng([seed, i])
    start = np.random.default_rng(seed).random(2)
    u_class, u_split = (start + i * _R2_STEPS) % 1.0
    cumulative = np.cumsum(FER2013_TRAIN_COUNTS) / sum(FER2013_TRAIN_COUNTS)
    emotion = EMOTIONS[int(np.searchsorted(cumulative, u_class, side="right"))]
    # Within a split identities are drawn at random: an even sequence would tie tones to classes.
    members = SPLIT_IDENTITIES[get_split(int(u_split * N_IDENTITIES))]
    identity = sample_identity(seed, int(rng.integers(members.start, members.stop)))

    def vary(sigma: float, limit: float) -> float:
        return float(np.clip(sigma * rng.standard_normal(), -limit, limit))

    return FaceFactors(
        identity=identity,
        emotion=emotion,
        aus=_sample_aus(rng, emotion),
        asymmetry=vary(0.1, 0.25),
        gaze_x=vary(0.15, 0.4),
        gaze_y=vary(0.1, 0.25),
        yaw=vary(13, 35),
        pitch=vary(7, 20),
        roll=vary(6, 20),
        light_azimuth=float(rng.uniform(-65, 65)),
        light_elevation=float(rng.uniform(5, 60)),
        light_strength=float(rng.uniform(0.65, 1.15)),
        glasses=str(rng.choice(GLASSES, p=(0.84, 0.14, 0.02))),
        mask=bool(rng.random() < 0.02),
        blur_sigma=float(rng.uniform(0.4, 1.0)) if rng.random() < 0.25 else 0.0,
        noise_sigma=float(rng.uniform(0.0, 0.02)),
        scale=1 + vary(0.035, 0.08),
        shift_x=vary(0.015, 0.04),
        shift_y=vary(0.015, 0.04),
        scene_seed=int(rng.integers(2**31)),
    )


def _sample_aus(rng: np.random.Generator, emotion: str) -> dict[str, float]:
    """Sample intensities around the prototype; some faces are faint, some lack a unit or carry a stray one.

    This keeps the confusions that people show too: fear with surprise, sadness with neutral.
    """
    strength = rng.uniform(0.3, 0.55) if rng.random() < 0.15 else rng.uniform(0.6, 1.0)
    aus = {}
    for au in PROTOTYPES[emotion]:
        is_missing = rng.random() < 0.06 and len(PROTOTYPES[emotion]) > 2
        aus[au] = 0.0 if is_missing else float(np.clip(strength * rng.normal(1.0, 0.15), 0.1, 1.0))
    for au, probability, highest in COMPANIONS.get(emotion, ()):
        if rng.random() < probability:
            aus[au] = float(strength * highest * rng.uniform(0.5, 1.0))
    for au in ACTION_UNITS:
        if au not in aus and rng.random() < 0.08:
            aus[au] = float(rng.uniform(0.05, 0.3))
    return aus
