"""What `predict` prints for each picture as soon as it is read: lines for people, JSON or CSV for programs."""

import csv
import json
import sys
from collections.abc import Sequence

from fer_lib.recognizer import Face
from fer_lib.tables import COLUMNS, build_rows


class TextPrinter:
    """The file, and a line for each face in it."""

    def add(self, source: str, faces: Sequence[Face]) -> None:
        """Print the faces of one picture."""
        lines = [describe_face(number, face) for number, face in enumerate(faces, start=1)]
        print("\n".join([show_name(source), *(lines or ["  no face found"])]), flush=True)

    def close(self) -> None:
        """Nothing is left to print."""


class JsonPrinter:
    """One document, a list of {source, faces}; it is whole even when the batch is interrupted."""

    def __init__(self):
        self._before = "[\n"

    def add(self, source: str, faces: Sequence[Face]) -> None:
        """Print the entry of one picture."""
        entry = {"source": source, "faces": [face.to_dict() for face in faces]}
        print(self._before + json.dumps(entry), end="", flush=True)
        self._before = ",\n"

    def close(self) -> None:
        """Print the end of the list."""
        print("[]" if self._before == "[\n" else "\n]")


class CsvPrinter:
    """The table of `tables.build_table`, a row per face, header first."""

    def __init__(self, emotions: Sequence[str]):
        self._writer = csv.DictWriter(sys.stdout, [*COLUMNS, *emotions], lineterminator="\n")
        self._writer.writeheader()

    def add(self, source: str, faces: Sequence[Face]) -> None:
        """Print the rows of one picture."""
        self._writer.writerows(build_rows(source, faces))
        sys.stdout.flush()

    def close(self) -> None:
        """Nothing is left to print."""


def describe_face(number: int, face: Face) -> str:
    """Return a face as a line, such as `  1  happy 84 %    positive  box 179,62 91x113`."""
    left, top, width, height = face.box
    name = f"{face.label} {100 * face.confidence:.0f} %"
    name = f"unsure ({name})" if face.abstained else name
    return f"{number:3}  {name:22} {face.group:9} box {left},{top} {width}x{height}"


def show_name(name: str) -> str:
    """Return a file's name fit for one line: with escapes where it holds line breaks or broken letters."""
    return name if name.isprintable() else ascii(name)
