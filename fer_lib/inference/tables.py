"""Results as tables: a row per face, for spreadsheets, pandas and plots."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fer_lib.inference.recognizer import Face

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "source",
    "face",
    "left",
    "top",
    "width",
    "height",
    "detection_score",
    "label",
    "confidence",
    "group",
    "abstained",
)
"""The first columns of every table of faces; one for each emotion follows, its probability."""


def build_table(
    faces_by_source: Mapping[str, Sequence[Face]], emotions: Sequence[str] = ()
) -> "pd.DataFrame":
    """Return a tidy table, one row per face, in the order given.

    Columns: `COLUMNS`, with `face` counted from 1 in each source and the box in pixels, then one per emotion.
    emotions: the model's, so that a table without any face has their columns too.
    """
    import pandas as pd

    rows = [row for source, faces in faces_by_source.items() for row in build_rows(source, faces)]
    names = emotions or (name for name in (rows[0] if rows else ()) if name not in COLUMNS)
    return pd.DataFrame(rows, columns=[*COLUMNS, *names])


def build_rows(source: str, faces: Sequence[Face]) -> list[dict[str, Any]]:
    """Return the table's rows of a source as plain values, rounded as `Face.to_dict` does, without pandas."""
    rows = []
    for number, face in enumerate(faces, start=1):
        left, top, width, height = face.box
        values = face.to_dict() | {"source": source, "face": number}
        values |= {"left": left, "top": top, "width": width, "height": height}
        rows.append({name: values[name] for name in COLUMNS} | values["probabilities"])
    return rows
