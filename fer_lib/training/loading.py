"""Load batches from the packed store: which faces in which order, and how they reach the network.

An order depends on (seed, epoch) alone and an augmentation on (seed, epoch, position) alone. So neither the
number of loader processes nor an interruption changes what is trained on.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from fer_lib.data.packed import PackedDataset
from fer_lib.errors import ParamsError
from fer_lib.param_sections import TrainingParams
from fer_lib.training.distributed import get_rank, get_world_size

Key = tuple[int, int | None]
"""A row of the packed store and the seed of its augmentation (None: no augmentation)."""


class FaceDataset(Dataset):
    """Faces by `Key`: an item is float32 (3, S, S), with its row of `targets` where there are any."""

    def __init__(
        self,
        faces: Sequence[np.ndarray] | np.ndarray,
        transform: Callable[[np.ndarray, int | None], torch.Tensor],
        targets: np.ndarray | None = None,
    ):
        self.faces, self.transform, self.targets = faces, transform, targets

    def __getitem__(self, key: Key) -> torch.Tensor | tuple[torch.Tensor, np.ndarray]:
        row, seed = key
        image = self.transform(self.faces[row], seed)
        return image if self.targets is None else (image, self.targets[row])


@dataclass
class EpochBatches(Sampler[list[Key]]):
    """A process's share of the batches of an epoch; set `epoch` and `start` before each iteration."""

    rows: np.ndarray  # int (N,), of the store
    weights: np.ndarray | None  # float (N,), how often each is drawn relative to others; None: shuffle
    batch_size: int
    seed: int
    epoch: int = 0
    start: int = 0  # batches to skip, when an interrupted epoch goes on

    def __len__(self) -> int:
        """Return the batches of a whole epoch; what does not fill a batch is left out (batch norm)."""
        return max(1, len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        n = len(self.rows)
        if self.weights is None:
            order = rng.permutation(n)
        else:
            order = rng.choice(n, size=n, p=self.weights / self.weights.sum())
        seeds = rng.integers(2**31, size=n)
        for batch in range(self.start, len(self)):
            span = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
            keys = list(zip(self.rows[order[span]].tolist(), seeds[span].tolist(), strict=True))
            yield keys[get_rank() :: get_world_size()]


def select_train_rows(data: PackedDataset, training: TrainingParams) -> np.ndarray:
    """Return the rows to train on: where asked without copies, of val and test too, or a share per class."""
    rows = data.get_rows("train")
    if training.drop_duplicates:
        not_in_val, not_in_test = (data.get_rows("train", drop_duplicates_of=s) for s in ("val", "test"))
        rows = np.intersect1d(not_in_val, not_in_test)
        groups = data.index["duplicate_group"].to_numpy()[rows]
        rows = np.sort(rows[np.unique(groups, return_index=True)[1]])
    if training.train_fraction < 1:
        shuffled = np.random.default_rng(training.seed).permutation(rows)
        rank = pd.Series(data.labels[shuffled]).groupby(data.labels[shuffled]).rank(method="first", pct=True)
        rows = np.sort(shuffled[rank.to_numpy() <= training.train_fraction])
    return rows


def compute_sampling_weights(
    data: PackedDataset, rows: np.ndarray, training: TrainingParams
) -> np.ndarray | None:
    """Return float64 (N,): how often each row is to be drawn, relative to others; None: all alike.

    The sampler `weighted` draws every class as often as another. `balance` names a column of the index whose
    values are drawn equally often within each class, and leaves the class its share. Raises ParamsError for a
    column that the data do not have, or do not know of every face.
    """
    labels, column = data.labels[rows], training.balance
    in_class = np.bincount(labels)[labels]
    weights = 1.0 / in_class if training.sampler == "weighted" else None
    if column is None:
        return weights
    if column not in data.index or data.index[column].iloc[rows].isna().any():
        raise ParamsError(
            f"training.balance: expected a column that {data.meta['dataset']} knows of every face, found "
            f"{column!r}; use null"
        )
    cells = pd.DataFrame({"label": labels, "group": data.index[column].to_numpy()[rows]})
    in_cell = cells.groupby(["label", "group"])["group"].transform("size").to_numpy()
    n_groups = cells.groupby("label")["group"].transform("nunique").to_numpy()
    even = in_class / (n_groups * in_cell)
    return even if weights is None else even * weights


def build_loader(dataset: FaceDataset, batches: Iterable[list[Key]], in_process: bool = False) -> DataLoader:
    """Return a loader over `batches`, with a process per core, at most eight.

    A network that has one thread alone loads its own faces: two processes would share that core. So it does
    with `in_process`, for faces so few that starting processes takes longer. Networks on several GPUs share
    the cores.
    """
    uses_gpu = torch.cuda.is_available()
    cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    is_alone = in_process or (torch.get_num_threads() == 1 and not uses_gpu)
    workers = 0 if is_alone else max(1, min(8, cores))
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=uses_gpu,
        worker_init_fn=_limit_threads,
        # Its own, or every pass would draw from the generator that dropout uses.
        generator=torch.Generator(),
    )


def build_eval_batches(rows: np.ndarray, batch_size: int) -> list[list[Key]]:
    """Return all of `rows` in order, in batches, without augmentation."""
    return [[(int(row), None) for row in rows[i : i + batch_size]] for i in range(0, len(rows), batch_size)]


def _limit_threads(_worker: int) -> None:
    # The loader's processes share the cores with the network; OpenCV would start a pool in each.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
