"""What a stage wrote, and what it can be recomputed from."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from fer_lib.data.packed import PackedDataset, load_packed
from fer_lib.errors import FerError
from fer_lib.metrics_file import Metrics
from fer_lib.params import Params
from fer_lib.paths import OutputDirs

Numbers = Iterator[tuple[str, Any]]
"""Keys of a stage's table or facts, and what they are to be; NaN where a number is not defined."""


@dataclass(frozen=True)
class Written:
    """What a stage wrote, and what it can be recomputed from.

    Parameters
    ----------
    root
        Folder of the project.
    dirs
        Folders of the data set.
    metrics
        What was written.
    packed
        Folder of the packed faces, or None where those of the stage are not here.
    params
        The stage's parameters, or None where they have changed since.
    """

    root: Path
    dirs: OutputDirs
    metrics: Metrics
    packed: Path | None
    params: Params | None

    @cached_property
    def faces(self) -> PackedDataset | None:
        """The packed faces."""
        return load_packed(self.packed.name, self.packed) if self.packed else None

    def read(self, file: str) -> pd.DataFrame:
        """Return a table of predictions by its path in the reports. Raises FerError for one of other data."""
        frame, expected = pd.read_parquet(self.dirs.reports / file), self.metrics.provenance["data"]
        if frame.attrs.get("data_hash") not in (None, expected):
            raise FerError(f"{file}: expected data {expected}, found {frame.attrs['data_hash']}")
        return frame

    def read_all(self, folder: str) -> dict[str, pd.DataFrame]:
        """Return the tables of a folder by name."""
        paths = sorted((self.dirs.reports / folder).glob("*.parquet"))
        return {path.stem: self.read(f"{folder}/{path.name}") for path in paths}
