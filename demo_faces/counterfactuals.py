"""Draw counterfactual faces: the same person and expression with one factor changed."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from demo_faces.factors import (
    FaceFactors,
    Identity,
    change_age,
    change_masculinity,
    sample_factors,
)
from demo_faces.scene import draw_face

SOURCE = "demo"
"""How the `source` of a drawn face begins: `demo:<seed>:<number>`."""


def _set(name: str) -> Callable[[FaceFactors, Any], FaceFactors]:
    return lambda factors, value: replace(factors, **{name: value})


def _change_identity(
    change: Callable[[Identity, Any], Identity],
) -> Callable[[FaceFactors, Any], FaceFactors]:
    return lambda factors, value: replace(factors, identity=change(factors.identity, value))


FACTORS: Mapping[str, tuple[tuple[Any, ...], Callable[[FaceFactors, Any], FaceFactors]]] = {
    "skin_tone": (tuple(range(1, 11)), _change_identity(lambda one, tone: replace(one, skin_tone=tone))),
    "age": ((0.1, 0.5, 0.9), _change_identity(change_age)),
    "masculinity": ((0.05, 0.5, 0.95), _change_identity(change_masculinity)),
    "glasses": (("none", "glasses", "sunglasses"), _set("glasses")),
    "mask": ((False, True), _set("mask")),
    "yaw": ((0, 10, 20, 30, 40, 50), _set("yaw")),
    "pitch": ((0, 8, 16, 24, 32, 40), _set("pitch")),
    "light_azimuth": ((-80, -40, 0, 40, 80), _set("light_azimuth")),
    "light_strength": ((0.35, 0.6, 1.0, 1.4, 1.8), _set("light_strength")),
}
"""The values of each factor, and how it is set. Skin tones are steps of the Monk scale, for which the camera
exposes anew; age and masculinity run 0..1; angles are degrees, those of yaw and pitch in five severities; a
light strength of 1 is well exposed."""

PAIRS: tuple[tuple[str, tuple[Any, ...], str, tuple[Any, ...]], ...] = (
    ("skin_tone", (1, 5, 10), "light_strength", (0.35, 1.0, 1.8)),
    ("glasses", ("none", "sunglasses"), "mask", (False, True)),
)
"""Two factors changed together, to see whether one matters more where the other is extreme."""


def list_counterfactuals() -> list[dict[str, Any]]:
    """Return what each counterfactual changes: one factor, or a pair of `PAIRS`."""
    single = [{factor: value} for factor, (values, _) in FACTORS.items() for value in values]
    joint = [{a: x, b: y} for a, xs, b, ys in PAIRS for x in xs for y in ys]
    return single + joint


def name_factors(changes: Mapping[str, Any]) -> str:
    """Return the name of the changed factors together: `glasses+mask`."""
    return "+".join(changes)


def draw_counterfactuals(source: str, size: int) -> np.ndarray:
    """Draw a face with every change of `list_counterfactuals`; all else about it stays the same.

    Parameters
    ----------
    source
        The face's `source` in the index, `demo:<seed>:<number>`.
    size
        Side of the images in pixels.

    Returns
    -------
    uint8 (V, size, size, 3)

    Raises
    ------
    ValueError
        For a face that was not drawn.
    """
    kind, *numbers = source.split(":")
    if kind != SOURCE or len(numbers) != 2:
        raise ValueError(f"{source}: expected a drawn face, `demo:<seed>:<number>`; only those can be varied")
    factors, drawn = sample_factors(*map(int, numbers)), []
    for changes in list_counterfactuals():
        changed = factors
        for name, value in changes.items():
            changed = FACTORS[name][1](changed, value)
        drawn.append(draw_face(changed, size)[0])
    return np.stack(drawn)
