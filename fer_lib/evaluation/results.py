"""Tables that a stage leaves for a notebook: parquet, with the hash of the data they were made of."""

from pathlib import Path

import pandas as pd
import pyarrow as pa

from fer_lib.data.packed import PackedDataset
from fer_lib.errors import DataError
from fer_lib.files import write_atomically

_HASH = "data_hash"


def write_table(path: Path, table: pd.DataFrame, data: PackedDataset) -> None:
    """Write a table made of `data`, without its index."""
    table.attrs = {_HASH: data.data_hash}  # pandas keeps it in the file's metadata
    write_atomically(path, table.to_parquet(index=False, compression="zstd"))


def read_table(path: Path, data: PackedDataset, command: str) -> pd.DataFrame:
    """Return a table of `write_table`.

    command: of `fer_lib`, that writes it. Raises DataError when there is none, or one of other data.
    """
    dataset = data.meta["dataset"]
    repair = f"run `python -m fer_lib {command} --dataset {dataset}` or `make repro DATASET={dataset}`"
    if not path.is_file():
        raise DataError(f"{path}: expected what `{command}` writes, found none; {repair}")
    try:
        table = pd.read_parquet(path)
    except (pa.ArrowException, OSError, ValueError):
        raise DataError(f"{path}: expected a parquet file, found none that can be read; {repair}") from None
    found = str(table.attrs.get(_HASH))
    if found != data.data_hash:
        expected = data.data_hash[:12]
        raise DataError(f"{path}: expected answers to data hash {expected}, found {found[:12]}; {repair}")
    return table
