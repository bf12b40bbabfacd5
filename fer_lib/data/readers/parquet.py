"""Read a parquet table whose columns are checked first, row by row, with errors a user can act on."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fer_lib.errors import DataError

_IS_OF_TYPE = {
    "integer": pa.types.is_integer,
    "string": lambda found: str(found) in ("string", "large_string", "string_view"),
    "binary": lambda found: str(found) in ("binary", "large_binary", "binary_view"),
}


class ParquetTable:
    """A parquet file that must have `columns`, by name and type (`integer`, `string` or `binary`).

    It streams `(source, record)`, the source being `file:row`, counted from 0. The `optional` columns are
    read where all of them are there. Raises DataError for an unreadable file, and for a column that is
    missing or of another type.
    """

    def __init__(self, path: Path, columns: Mapping[str, str], optional: Mapping[str, str]) -> None:
        self.path = path
        try:
            schema, self.n_rows = pq.read_schema(path), pq.read_metadata(path).num_rows
        except (OSError, pa.ArrowException) as error:
            raise self._build_error(error) from None
        types = {**columns, **(optional if set(optional) <= set(schema.names) else {})}
        self.columns = list(types)
        for name, expected in types.items():
            if name not in schema.names:
                found = ", ".join(schema.names)
                raise DataError(f"{path}: expected column {name!r}, found {found}; rename the column")
            found = schema.types[schema.names.index(name)]
            values = found.value_type if pa.types.is_dictionary(found) else found
            if not _IS_OF_TYPE[expected](values):
                raise DataError(
                    f"{path}: expected column {name!r} of type {expected}, found {str(found)[:80]}; "
                    "convert the column"
                )

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        try:
            with pq.ParquetFile(self.path) as file:
                # So few that a batch of decoded Python rows stays near 1 MB.
                batches = file.iter_batches(512, columns=self.columns)
                records = (record for batch in batches for record in batch.to_pylist())
                for number, record in enumerate(records):
                    yield f"{self.path.name}:{number}", record
        except (OSError, pa.ArrowException) as error:
            raise self._build_error(error) from None

    def _build_error(self, error: Exception) -> DataError:
        detail = " ".join(str(error).split())[:120]
        return DataError(
            f"{self.path}: expected a parquet file, found an unreadable one ({detail}); download it again"
        )
