"""Pack raw faces into the store that everything else reads: one streaming pass, bounded memory."""

import hashlib
import json
import operator
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from fer_lib.data.framing import measure_framing
from fer_lib.data.packed import FACES_FILE, INDEX_FILE, META_FILE, SPLITS
from fer_lib.data.readers import open_reader
from fer_lib.data.readers.base import Excluded, Face, Reader
from fer_lib.data.store_writer import StoreWriter
from fer_lib.errors import DataError, ParamsError
from fer_lib.params import PrepareParams
from fer_lib.paths import get_packed_dir

N_FRAMED = 400
"""Training faces in which landmarks are looked for: the medians then vary by less than half a pixel of 48."""


def prepare(
    dataset: str,
    params: PrepareParams,
    raw_dir: str | Path | None = None,
    out_dir: str | Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Pack `dataset` into `out_dir` (default: `paths.get_packed_dir`) and return its `meta.json`.

    Written: `faces.npy`, `index.parquet`, `regions.npy` (where faces have regions), `splits/<split>.txt`
    (`row sha1` a line), `dropped.csv`, `meta.json`. The same input gives the same bytes. All is written to
    a folder beside and swapped in at the end, so a failure leaves an older version as it was.

    Raises DataError naming file and row for the first bad row, unless `params.skip_bad`; then bad rows are
    listed in `dropped.csv`. Also raises DataError when a split is left without a face, and ParamsError for
    fractions that leave nothing to train on. A class without a face is no error: one's own images may show
    fewer emotions, and the audit counts them.
    """
    if params.val_fraction + params.test_fraction >= 1:
        raise ParamsError("prepare: expected val_fraction + test_fraction below 1; lower one of them")
    out_dir = Path(out_dir) if out_dir else get_packed_dir(dataset)
    reader = open_reader(dataset, params, raw_dir)
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    _clean_up_after_killed_runs(out_dir)
    temporary = out_dir.with_name(f".{out_dir.name}.new-{os.getpid()}")
    temporary.mkdir()
    try:
        meta = _pack(dataset, reader, params, temporary, progress)
        _swap_in(temporary, out_dir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return meta


def _pack(
    dataset: str, reader: Reader, params: PrepareParams, folder: Path, progress: bool
) -> dict[str, Any]:
    n_excluded = 0
    total = operator.length_hint(reader) or None
    with StoreWriter(folder, reader.emotions, params.size, params.channels) as writer:
        for item in tqdm(reader, total=total, desc=f"prepare {dataset}", unit="face", disable=not progress):
            if isinstance(item, Face):
                writer.add_face(item, choose_split(item, params))
            elif isinstance(item, Excluded):
                n_excluded += 1
            elif params.skip_bad:
                writer.add_dropped(item)
            else:
                raise DataError(
                    f"{dataset}: {item.source}: {item.reason}; correct it, or set prepare.skip_bad: true in "
                    "params.yaml to drop such rows"
                )
        content = writer.finish()
    _check_splits(dataset, content["counts"])
    framing = measure_framing(_read_sample(folder))
    meta = {
        "dataset": dataset,
        "layout": reader.layout,
        **content,
        "framing": framing and framing.to_dict(),
        "n_excluded": n_excluded,
        "seed": params.seed,
    }
    (folder / META_FILE).write_text(json.dumps(meta, indent=2) + "\n")
    return meta


def _read_sample(folder: Path) -> np.ndarray:
    """Return up to `N_FRAMED` training faces, evenly spread.

    They are read one by one: a memory map would keep whatever it touched.
    """
    split = pd.read_parquet(folder / INDEX_FILE, columns=["split"])["split"]
    rows = np.flatnonzero(split == "train")
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(N_FRAMED, len(rows))).astype(int))]
    faces = np.load(folder / FACES_FILE, mmap_mode="r")
    shape, offset, size = faces.shape[1:], faces.offset, int(np.prod(faces.shape[1:]))
    with open(folder / FACES_FILE, "rb") as file:
        return np.stack(
            [np.fromfile(file, np.uint8, size, offset=offset + row * size - file.tell()) for row in rows]
        ).reshape(-1, *shape)


def _check_splits(dataset: str, counts: dict[str, dict[str, int]]) -> None:
    sizes = {split: sum(of_class.values()) for split, of_class in counts.items()}
    empty = [split for split, size in sizes.items() if not size]
    if empty:
        found = ", ".join(f"{split} {size:,}" for split, size in sizes.items())
        raise DataError(
            f"{dataset}: expected faces in every split, found none in {' and '.join(empty)} ({found}); "
            "add faces to it or, where it is cut from train, change prepare.val_fraction or "
            "prepare.test_fraction in params.yaml"
        )


def choose_split(face: Face, params: PrepareParams) -> str:
    """Return the split of a face; where the source leaves it open, by a hash of (seed, source pixels).

    The hash makes exact duplicates fall into the same split, and keeps every face where it is when the
    packed size or the rest of the source changes.
    """
    candidates = face.split.split("|") if face.split else SPLITS
    if len(candidates) == 1:
        return candidates[0]
    pixels = hashlib.sha1(np.ascontiguousarray(face.image)).digest()
    digest = hashlib.sha256(f"{params.seed} {face.image.shape} ".encode() + pixels).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if "test" in candidates:
        if position < params.test_fraction:
            return "test"
        position -= params.test_fraction
    return "val" if "val" in candidates and position < params.val_fraction else "train"


def _swap_in(new: Path, out_dir: Path) -> None:
    """Put `new` in the place of `out_dir`: two renames, since a folder cannot replace a full one in one."""
    old = out_dir.with_name(f".{out_dir.name}.old-{os.getpid()}")
    if out_dir.exists():
        out_dir.rename(old)
    new.rename(out_dir)
    shutil.rmtree(old, ignore_errors=True)


def _clean_up_after_killed_runs(out_dir: Path) -> None:
    """Remove what runs that are no longer alive left behind; restore a version caught between two renames."""
    for path in sorted(out_dir.parent.glob(f".{out_dir.name}.*")):
        left_over = re.fullmatch(r"\.(new|old)-(\d+)", path.name.removeprefix(f".{out_dir.name}"))
        if left_over is None or _is_other_process(int(left_over[2])):
            continue
        if left_over[1] == "old" and not out_dir.exists():
            path.rename(out_dir)
        else:
            shutil.rmtree(path)


def _is_other_process(pid: int) -> bool:
    """Tell whether `pid` is alive and not this process."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
