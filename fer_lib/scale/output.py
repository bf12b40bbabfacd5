"""Keep how far a run of `fer score` is, in the folder that it writes."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from pyarrow import fs
from pyarrow.dataset import dataset, field

from fer_lib.errors import DataError
from fer_lib.files import hold_lock
from fer_lib.scale.sources import Place

SETTINGS = "_settings.json"
"""In the output: what it was begun with. Arrow, pandas and Spark skip names that begin with `_`."""

PENDING = ".pending.parquet"
"""How the names of Ray's checkpoint files end until their table is written."""


class Output:
    """The folder of a run: its tables by shard, what it was begun with, and how far it is."""

    def __init__(self, address: str):
        self.address, self.place = address, Place.parse(address)
        self.system, self.folder = self.place.open()

    @contextmanager
    def hold(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Keep other runs on this machine out. Raises DataError for an output that was begun otherwise."""
        self.system.create_dir(self.folder, recursive=True)
        is_local = isinstance(self.system, fs.LocalFileSystem)
        with hold_lock(Path(self.folder, "_lock")) if is_local else nullcontext():
            self._check(settings)
            yield

    def _check(self, settings: Mapping[str, Any]) -> None:
        path = f"{self.folder}/{SETTINGS}"
        if self.system.get_file_info(path).is_file:
            with self.system.open_input_stream(path) as file:
                begun = json.loads(file.read())
            differing = [name for name, value in settings.items() if begun.get(name) != value]
            if differing:
                raise DataError(
                    f"{self.address}: expected to resume what was begun there, found other "
                    f"{', '.join(differing)}; name another --output"
                )
            return
        entries = self.system.get_file_info(fs.FileSelector(self.folder))
        if any(not entry.base_name.startswith("_") for entry in entries):
            raise DataError(
                f"{self.address}: expected a new or empty folder, found files; name another --output"
            )
        with self.system.open_output_stream(f"{path}.partial") as file:
            file.write(json.dumps(settings, indent=2).encode())
        self.system.move(f"{path}.partial", path)

    def is_done(self, shard: str) -> bool:
        """Return whether every image of a shard is in its tables."""
        return bool(self.system.get_file_info(f"{self.folder}/_done/{shard}").is_file)

    def count_errors(self) -> int:
        """Return the number of images that could not be scored."""
        tables = dataset(self.folder, filesystem=self.system)
        return tables.count_rows(filter=field("error").is_valid())

    def get_checkpoint(self, shard: str) -> str:
        """Return the folder in which Ray keeps the ids of a shard's images that are scored."""
        return f"{self.folder}/_checkpoints/{shard}"

    def list_checkpoints(self, shard: str) -> dict[str, list[str]]:
        """Return the paths of Ray's checkpoint files, `pending` and `committed`."""
        selector = fs.FileSelector(self.get_checkpoint(shard), allow_not_found=True)
        paths = [entry.path for entry in self.system.get_file_info(selector) if entry.is_file]
        pending = [path for path in paths if path.endswith(PENDING)]
        return {"pending": pending, "committed": [path for path in paths if path not in pending]}

    def mend(self, shard: str) -> None:
        """Take back what is pending and committed at once: Ray deletes its table but would keep its ids.

        That remains where a run ends while a store copies one to the other, or where a write is repeated.
        """
        found = self.list_checkpoints(shard)
        for twin in {path.removesuffix(PENDING) + ".parquet" for path in found["pending"]}:
            if twin in found["committed"]:
                self.system.delete_file(twin)

    def finish(self, shard: str) -> None:
        """Keep that a shard is done, and then drop its checkpoint: never neither of the two."""
        self.system.create_dir(f"{self.folder}/_done", recursive=True)
        with self.system.open_output_stream(f"{self.folder}/_done/{shard}"):
            pass
        self.system.delete_dir(self.get_checkpoint(shard))
