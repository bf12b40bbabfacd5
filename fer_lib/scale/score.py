"""Score any number of images with Ray Data, here or on a cluster; a run that was killed resumes."""

import hashlib
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from pyarrow import fs
from ray.data import ActorPoolStrategy, DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.data.checkpoint import CheckpointConfig
from tqdm import tqdm

from fer_lib.data.images import ImageError, decode_image
from fer_lib.inference.annotate import COLUMNS, build_rows
from fer_lib.inference.faces import Emotion
from fer_lib.inference.recognizer import LARGEST_CROP, Recognizer
from fer_lib.scale.cluster import refuse_several_machines, start_ray
from fer_lib.scale.output import Output
from fer_lib.scale.sources import ID, SCHEMA, Part, Place, list_parts

SHARD = 1_000_000
"""Images of a shard: when an interrupted run resumes, the ids of those that are done are in memory."""

N_TRIES = 3
"""To read a file from a store, and to score a block whose worker died."""


class Scorer:
    """One worker: a model with one thread, and what it sees in a block of images."""

    def __init__(self, model: ray.ObjectRef, variant: str, crops: bool):
        files: dict[str, bytes] = ray.get(model)
        # Its own copy: the machines of a cluster share no folder.
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                Path(folder, name).write_bytes(content)
            self.recognizer = Recognizer(folder, variant=variant, threads=1)
        self.crops, self.model = crops, hash_model(files)
        self.schema = build_schema(self.recognizer.emotions)

    def __call__(self, block: pa.Table) -> pa.Table:
        """Return the rows of `build_schema` for a block of `sources.SCHEMA`."""
        rows, crops, names = [], [], []
        for source, image, path in zip(*block.to_pydict().values(), strict=True):
            try:
                pixels = decode_image(image if path is None else _read(path))
                if self.crops or max(pixels.shape[:2]) <= LARGEST_CROP:
                    crops.append(self.recognizer.fit_crop(pixels))
                    names.append(source)
                    continue
                faces = self.recognizer(pixels)
            except (_UnreachableError, MemoryError):
                raise
            except Exception as error:  # whatever one image does to decoder or detector, it stops no others
                reason = error if isinstance(error, ImageError) else f"{type(error).__name__}: {error}"
                rows.append({ID: source, "error": " ".join(str(reason).split())[:300]})
                continue
            found = build_rows(source, faces)
            for row, face in zip(found, faces, strict=True):
                row["landmarks"] = face.landmarks.ravel().tolist()
            rows += found or [{ID: source}]
        emotions = map(self.recognizer.describe, self.recognizer.compute_probabilities(crops))
        rows += [_describe_crop(source, emotion) for source, emotion in zip(names, emotions, strict=True)]
        return pa.Table.from_pylist([row | {"model": self.model} for row in rows], self.schema)


class _UnreachableError(Exception):
    """The store did not answer: it says nothing of the image, and the run is to be begun again later."""


def _describe_crop(source: str, emotion: Emotion) -> dict[str, Any]:
    values = dict(vars(emotion))
    return {ID: source, "face": 1, **values.pop("probabilities"), **values}


def build_schema(emotions: Sequence[str]) -> pa.Schema:
    """Return the columns of the output: those of `fer predict --csv`, and three more.

    landmarks: 10 numbers, x and y in pixels in the order of `detector.LANDMARKS`.   error: why an image was
    not read.   model: `hash_model`.   A face that was cut out already has no box, landmarks and score. A row
    without a face stands for an image in which none was found, or which has an error.
    """
    words = pa.dictionary(pa.int8(), pa.string())
    types = {ID: pa.string(), "landmarks": pa.list_(pa.float32()), "label": words, "group": words}
    types |= {"detection_score": pa.float32(), "confidence": pa.float32(), "abstained": pa.bool_()}
    columns = {name: types.get(name, pa.int32()) for name in (*COLUMNS, "landmarks")}
    columns |= dict.fromkeys(emotions, pa.float32())
    return pa.schema({**columns, "error": pa.string(), "model": words})


def hash_model(files: dict[str, bytes]) -> str:
    """Return the sha256 (hex) over the files of a model, by name."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name} {hashlib.sha256(files[name]).hexdigest()}\n".encode())
    return digest.hexdigest()


class PartSource(Datasource):
    """Parts of the input, one read task each: a block that is scored, written and kept together."""

    def __init__(self, parts: Sequence[Part]):
        super().__init__()
        self.parts = parts

    def estimate_inmemory_data_size(self) -> int | None:
        """Return None: nobody knows before reading."""
        return None

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        """Return a task for each part."""
        return [
            ReadTask(part.read, BlockMetadata(part.n_images, None, None, None, None), SCHEMA)
            for part in self.parts
        ]


def score(
    inputs: Sequence[str],
    output: str,
    model: str,
    variant: str | None = None,
    *,
    column: str = "image",
    crops: bool = False,
    address: str | None = None,
    workers: int | None = None,
    shard: int = SHARD,
) -> tuple[Counter[str], int]:
    """Write a model's predictions for any number of images as parquet files.

    Returns what was skipped, and the number of images that could not be scored, in the column `error`.

    The columns are those of `build_schema`. If interrupted, the same call resumes; in the end every image is
    in exactly one file, provided that one run at a time writes the output. On a store only the caller can see
    to that. The process that calls holds some 300 bytes for each image file, and for each block of a table.

    Parameters
    ----------
    inputs, column
        As of `sources.list_parts`. With several machines, a path without a scheme is refused: `file://` says
        that all of them see the same files.
    output
        A folder, here or at an address.
    model, variant
        As of `Recognizer`.
    crops
        Every image is a face, cut as the model's training faces are; else those of at most `LARGEST_CROP`
        pixels.
    address
        Of a Ray cluster, or `auto`; None: Ray starts on this machine and ends with the run.
    workers
        Processes that score, each on one core; None: as many as there are cores.
    shard
        See `SHARD`.

    Raises
    ------
    DataError
        For inputs that match no images, and an output that was begun with other settings.
    FerError
        When another run on this machine writes the output, there are too few cores, or Ray gives up.
    """
    skipped = Counter[str]()
    recognizer = Recognizer(model, variant=variant)
    files = {path.name: path.read_bytes() for path in recognizer.folder.iterdir() if path.is_file()}
    target = Output(output)
    parts = list(list_parts(inputs, column, skipped, leave_out=target.place))
    settings = {
        "inputs": hash_parts(parts),
        "model": hash_model(files),
        "variant": recognizer.variant,
        "crops": crops,
        "shard": shard,
    }
    n_images = sum(part.n_images for part in parts)
    shards = {f"{number:05d}": some for number, some in enumerate(split_parts(parts, shard))}
    with target.hold(settings), start_ray(address, workers) as n_workers:
        if address is not None and not all(Place.parse(item).root for item in (*inputs, output)):
            refuse_several_machines()
        arguments = (ray.put(files), recognizer.variant, crops)
        left = {name: some for name, some in shards.items() if not target.is_done(name)}
        n_before = n_images - sum(part.n_images for some in left.values() for part in some)
        with tqdm(total=n_images, initial=n_before, unit="image", smoothing=0, dynamic_ncols=True) as bar:
            for name, some in left.items():
                _score_shard(some, target, name, arguments, n_workers, bar)
        return skipped, target.count_errors()


def hash_parts(parts: Sequence[Part]) -> str:
    """Return the sha256 (hex) over what the parts are."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(part).encode())
    return digest.hexdigest()


def split_parts(parts: Sequence[Part], shard: int) -> Iterator[list[Part]]:
    """Yield the parts in shards of at most `shard` images, but of one part at least."""
    some, n_images = list[Part](), 0
    for part in parts:
        if some and n_images + part.n_images > shard:
            yield some
            some, n_images = [], 0
        some.append(part)
        n_images += part.n_images
    if some:
        yield some


def _score_shard(
    parts: Sequence[Part], output: Output, shard: str, arguments: tuple[Any, ...], workers: int, bar: tqdm
) -> None:
    output.mend(shard)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    checkpoint = CheckpointConfig(
        ID,
        output.get_checkpoint(shard),
        override_filesystem=output.system,
        delete_checkpoint_on_success=False,
    )
    # The process that leaves out what is scored already asks for a gigabyte otherwise, which a small machine
    # does not have; the ids of a shard take a tenth of that.
    checkpoint.checkpoint_actor_pool_max_size, checkpoint.checkpoint_actor_memory_bytes = 1, 256_000_000
    context.checkpoint_config = checkpoint
    scored = ray.data.read_datasource(PartSource(parts), override_num_blocks=len(parts)).map_batches(
        Scorer,
        fn_constructor_args=arguments,
        batch_size=None,
        batch_format="pyarrow",
        # One block to work at and one that waits: more would wait for one worker while another has none.
        compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
        num_cpus=1,
        max_task_retries=N_TRIES,
    )
    with _watch(output, shard, parts, bar):
        scored.write_parquet(f"{output.folder}/shard={shard}", filesystem=output.system)
    output.finish(shard)


@contextmanager
def _watch(output: Output, shard: str, parts: Sequence[Part], bar: tqdm) -> Iterator[None]:
    """Move the bar while the parts of a shard are committed."""
    n_before, n_images, ended = bar.n, sum(part.n_images for part in parts), threading.Event()

    def watch() -> None:
        while not ended.wait(1):
            share = len(output.list_checkpoints(shard)["committed"]) / len(parts)
            bar.update(n_before + int(min(1, share) * n_images) - bar.n)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
        bar.update(n_before + n_images - bar.n)
    finally:
        ended.set()
        watcher.join()


def _read(address: str) -> bytes:
    system, path = Place.parse(address).open()
    for attempt in range(N_TRIES):
        try:
            with system.open_input_stream(path) as file:
                return file.read()
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            raise ImageError(f"expected a readable file, found none: {error.strerror or error}") from None
        except OSError as error:
            if isinstance(system, fs.LocalFileSystem):
                raise
            if "ACCESS_DENIED" in str(error):
                raise ImageError("expected a readable file, found one that the store refuses") from None
            failure = error
            time.sleep(2**attempt)
    raise _UnreachableError(f"{address}: {failure}")
