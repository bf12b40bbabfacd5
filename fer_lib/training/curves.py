"""Write the curves of a training while it runs, for TensorBoard."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from torch.utils.tensorboard import SummaryWriter

CURVES_NAME = "curves"


class Curves:
    """The log of one training, a context manager. One that goes on at `step` drops what was logged after it.

    `is_shown`: of several processes that train together, one writes.
    """

    def __init__(self, folder: Path, step: int, is_shown: bool):
        self._folder, self._step, self._is_shown = folder, step, is_shown
        self._writer: SummaryWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._writer:
            self._writer.close()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add values of so many batches since the start, by their names."""
        if not self._is_shown:
            return
        if self._writer is None:  # a training that had finished adds nothing
            if not self._step:
                shutil.rmtree(self._folder, ignore_errors=True)
            self._writer = SummaryWriter(str(self._folder), purge_step=self._step or None)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
