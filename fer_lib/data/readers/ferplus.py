"""Read FER+: FER2013's pixels with the votes of ten annotators (Barsoum et al. 2016, arXiv 1608.01041)."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from fer_lib.data.readers.base import BadRow, Excluded, Face
from fer_lib.data.readers.fer2013 import VOTES_FILE, Fer2013Reader, find_layout
from fer_lib.errors import DataError
from fer_lib.labels import EMOTIONS_8, VOTE_OF_LABEL, VOTES

_FACTORS = tuple(f"votes_{name}" for name in VOTES)


class FerPlusReader:
    """FER2013 relabelled by FER+'s votes, eight classes; the votes stay as factors `votes_*`.

    The votes come from the parquet file's own columns or from `fer2013new.csv` beside the pixels; for where
    these are, see `find_pixels_dir`. Raises DataError when there are no votes or they do not match the
    pixels.
    """

    emotions: tuple[str, ...] = EMOTIONS_8

    def __init__(self, raw_dir: Path) -> None:
        pixels_dir = find_pixels_dir(raw_dir)
        self._reader = Fer2013Reader(pixels_dir)
        self.layout = self._reader.layout
        if not self._reader.has_votes:
            raise DataError(
                f"{pixels_dir}: expected {VOTES_FILE} beside fer2013.csv, or a parquet file with ferplus_* "
                f"columns, found layout {self.layout!r} without votes; see data/README.md"
            )

    def __len__(self) -> int:
        return len(self._reader)

    def __iter__(self) -> Iterator[Face | BadRow | Excluded]:
        for item in self._reader:
            yield _relabel(item) if isinstance(item, Face) else item


def find_pixels_dir(raw_dir: Path) -> Path:
    """Return the one folder FER+ is made from: `raw_dir` if it holds pixels, else `fer2013` beside it.

    Raises DataError for votes in a `raw_dir` without pixels. A second folder would be one that the pipeline
    does not watch: changed votes would go unnoticed.
    """
    if find_layout(raw_dir) is not None:
        return raw_dir
    pixels_dir = raw_dir.with_name("fer2013")
    if (raw_dir / VOTES_FILE).is_file():
        raise DataError(
            f"{raw_dir}: expected {VOTES_FILE} beside the pixels it labels, found it without them; "
            f"move it into {pixels_dir}"
        )
    return pixels_dir


def count_majority(votes: np.ndarray) -> tuple[int, np.ndarray] | None:
    """Return (label, soft label) for one face's votes, or None when FER+'s protocol leaves the face out.

    votes: integers (10,), in the order of `labels.VOTES`. The soft label is float32 (8,), summing to 1.

    The label follows mode `majority` of the reference code (github.com/microsoft/FERPlus, `src/ferplus.py`,
    `_process_data`): choices with a single vote count as outliers and are set to zero; the winner needs
    more than half of the votes that remain, those for `unknown` and `not a face` included; a face without
    such a winner, or whose winner is one of these two, is left out. The reference code then trains on the
    winner alone; the soft label here keeps the remaining votes for the eight emotions, normalised.
    """
    kept = np.where(votes > 1, votes, 0)
    winner = int(kept.argmax())
    if 2 * kept[winner] <= kept.sum() or winner not in VOTE_OF_LABEL:
        return None
    emotions = kept[list(VOTE_OF_LABEL)].astype(np.float32)
    return VOTE_OF_LABEL.index(winner), emotions / emotions.sum()


def _relabel(face: Face) -> Face | Excluded:
    majority = count_majority(np.array([face.factors[name] for name in _FACTORS]))
    if majority is None:
        return Excluded(face.source, "no emotion has the majority of the votes")
    label, soft_label = majority
    return replace(face, label=label, soft_label=soft_label)
