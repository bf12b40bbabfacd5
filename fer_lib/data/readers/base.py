"""What a reader yields, whatever the source: faces, rows that could not be read, rows left out."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Face:
    """One face as its source gives it.

    image: uint8, (H, W) grey or (H, W, 3) RGB.   label: index into the source's `emotions`.
    split: `train`, `val` or `test` as the source gives it; several joined by `|` where the source leaves
    it open, e.g. `train|val`; empty for any of the three. `prepare` then assigns one.
    source: where it came from, relative to the raw folder, e.g. `fer2013.csv:17` or `train/sad/x.jpg`.
    soft_label: float32 (n_classes,), sums to 1, or None.
    factors: further index columns; the same names and types in every face of a source.
    regions: bool (H, W), the active facial regions, or None.
    """

    image: np.ndarray
    label: int
    split: str
    source: str
    soft_label: np.ndarray | None = None
    factors: dict[str, Any] = field(default_factory=dict)
    regions: np.ndarray | None = None


@dataclass(frozen=True)
class BadRow:
    """A row that could not be read: where it stands and one line saying what is wrong with it."""

    source: str
    reason: str


@dataclass(frozen=True)
class Excluded:
    """A readable row that the source's protocol leaves out, e.g. for having no majority. Only counted."""

    source: str
    reason: str


class Reader(Protocol):
    """A recognised source: its classes, and its rows in a fixed order, streamed.

    `len(reader)`, where a reader has it, is the number of rows to expect; it only scales the progress bar.
    """

    emotions: tuple[str, ...]
    layout: str

    def __iter__(self) -> Iterator[Face | BadRow | Excluded]: ...
