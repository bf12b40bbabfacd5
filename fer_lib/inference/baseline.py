"""A person's resting face as the baseline of their other predictions; `benchmarks/neutral.py` measures it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fer_lib.data.images import ImageSource
from fer_lib.errors import MediaError, ModelError

if TYPE_CHECKING:
    from fer_lib.inference.recognizer import Recognizer

NEUTRAL = "neutral"

LIKELIER = 2.0
"""How many times likelier than each emotion neutral is at rest, at least, once the weights are applied: the
least log loss on validation of the ways in `benchmarks/neutral.py` that need no constant of the model.
"""

MIN_PROBABILITY = 1e-12


@dataclass(frozen=True)
class Baseline:
    """How much less each emotion counts for one person, because their resting face shows it already."""

    weights: tuple[float, ...]
    """By emotion, in the model's order: 1 for neutral and what is unlikely at rest, else less."""

    @classmethod
    def from_probabilities(cls, rows: np.ndarray, emotions: Sequence[str]) -> "Baseline":
        """Return the baseline of one person at rest.

        An emotion gets the weight min(1, n / (`LIKELIER` p)), with its p and neutral's n at rest: geometric
        means of the probabilities.

        Parameters
        ----------
        rows
            float (N, C) probabilities of N > 0 images of the person.
        emotions
            C names, in the order of the columns.

        Raises
        ------
        ModelError
            When none of the names is `neutral`.
        """
        logs = np.log(np.maximum(rows, MIN_PROBABILITY)).mean(axis=0)
        neutral = find_neutral(emotions)
        weights = np.minimum(1.0, np.exp(logs[neutral] - logs) / LIKELIER)
        weights[neutral] = 1.0
        return cls(tuple(weights.tolist()))

    @classmethod
    def from_image(cls, recognizer: "Recognizer", image: ImageSource) -> "Baseline":
        """Return the baseline of the one person whom a photograph shows at rest.

        Raises MediaError when it cannot be read or does not show exactly one face, and ModelError as
        `from_probabilities`.
        """
        find_neutral(recognizer.emotions)
        faces = recognizer(image)
        if len(faces) != 1:
            name = image if isinstance(image, str | Path) else "the neutral photograph"
            raise MediaError(
                f"{name}: expected one face at rest, found {len(faces) or 'none'}; cut the photograph so "
                "that it shows one person's face"
            )
        return cls.from_probabilities(np.array([[*faces[0].probabilities.values()]]), recognizer.emotions)

    def apply(self, row: np.ndarray) -> np.ndarray:
        """Return float (C,) probabilities, weighted and made to sum to 1 again.

        Raises ModelError for probabilities of another number of emotions.
        """
        if len(row) != len(self.weights):
            raise ModelError(
                f"baseline: expected one of a model with {len(row)} emotions, found {len(self.weights)}; "
                "make it with this model"
            )
        weighted = row * np.array(self.weights)
        return weighted / weighted.sum()


def find_neutral(emotions: Sequence[str]) -> int:
    """Return the index of neutral. Raises ModelError for a model that has no such class."""
    if NEUTRAL not in emotions:
        raise ModelError(
            f"neutral: expected a model with the class {NEUTRAL}, found {', '.join(emotions)}; choose "
            "another model, or do without a baseline"
        )
    return list(emotions).index(NEUTRAL)
