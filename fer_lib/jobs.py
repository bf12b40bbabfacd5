"""Run trainings, stages and other long jobs side by side, each after those that it needs."""

import ctypes
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partialmethod
from graphlib import TopologicalSorter
from itertools import islice
from multiprocessing import current_process, get_context, parent_process
from typing import Any, TypeVar

from tqdm import tqdm

from fer_lib.errors import FerError

Item = TypeVar("Item")
Result = TypeVar("Result")
Needs = Mapping[str, Collection[str]]
"""Job to those that must be done before it; names that are no jobs count as done."""

_CHUNK = 8
"""Items that a process of `map_side_by_side` takes at a time."""


_KEEP_ALL = {-4: 0, -1: -1}
"""M_MMAP_MAX: no block is mapped by itself. M_TRIM_THRESHOLD: the heap never shrinks (glibc's malloc.h)."""


def run_side_by_side(
    jobs: Mapping[str, Callable[[], Result]],
    title: str,
    needs: Needs | None = None,
    on_done: Callable[[str, Result], Any] | None = None,
) -> dict[str, Result]:
    """Run the jobs in one process per core; return the results by name, in the order of `jobs`.

    Small networks on small faces keep two threads busy half of the time; two processes of one thread each are
    faster, and what they compute does not depend on the number of cores. On a GPU one job runs at a time.

    Parameters
    ----------
    jobs
        Name to a function that can be pickled, the most urgent first.
    title
        Of the progress bar.
    on_done
        Is called here with the name and result of each job as it ends.

    Raises
    ------
    Exception
        The first that a job raises; those that have not begun are dropped.
    FerError
        When a process ends before its job.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:  # whose processes would all begin the same jobs
        raise FerError(
            "torchrun: expected the command `train`, found one that runs several jobs; run it alone"
        )
    _end_second_run()
    n_workers = 1 if _has_gpu() else min(os.cpu_count() or 1, len(jobs) or 1)
    results: dict[str, Result] = {}
    modules = {getattr(job, "func", job).__module__ for job in jobs.values()}
    with (
        _expect_workers(),
        _start_pool(n_workers, modules) as pool,
        tqdm(total=len(jobs), desc=title, unit="job", dynamic_ncols=True) as bar,
    ):

        def show(running: Collection[str]) -> None:
            bar.set_postfix_str(", ".join(running))

        for name, result in run_jobs(jobs, pool, n_workers, needs, on_start=show):
            results[name] = result
            bar.update()
            if on_done:
                on_done(name, result)
    return {name: results[name] for name in jobs}


def run_jobs(
    jobs: Mapping[str, Callable[[], Result]],
    pool: Executor,
    n_lanes: int,
    needs: Needs | None = None,
    alone: Collection[str] = (),
    on_start: Callable[[Collection[str]], Any] | None = None,
) -> Iterator[tuple[str, Result]]:
    """Run the jobs in `pool`, at most `n_lanes` at a time; yield the name and result of each as it ends.

    Of those whose needs are done, the first in `jobs` begins. One of `alone` runs with no other beside
    it. `on_start` is called with the names of those that run. Raises what a job raises; those that have not
    begun are dropped.
    """
    order = TopologicalSorter(
        {name: [other for other in (needs or {}).get(name, ()) if other in jobs] for name in jobs}
    )
    urgency, ready = list(jobs), list[str]()
    running: dict[Future[Result], str] = {}
    order.prepare()
    try:
        while order.is_active():
            ready = sorted([*ready, *order.get_ready()], key=urgency.index)
            while ready and len(running) < n_lanes:
                if running and not {ready[0], *running.values()}.isdisjoint(alone):
                    break
                name = ready.pop(0)
                running[pool.submit(jobs[name])] = name
            if on_start:
                on_start(running.values())
            done = wait(running, return_when=FIRST_COMPLETED).done
            for future in sorted(done, key=lambda ended: ended.exception() is not None):  # failures last
                name = running.pop(future)
                yield name, future.result()
                order.done(name)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def map_side_by_side(
    function: Callable[[Item], Result], items: Iterable[Item], n_workers: int
) -> Iterator[Result]:
    """Return the function's results for the items as a stream, in order, from `n_workers` processes.

    Few are computed before they are asked for, so that memory does not grow with their number. OpenCV has one
    thread in each process; with one worker, all is done here. Raises FerError, in the stream, when a process
    ends before its work.
    """
    if n_workers == 1:
        return map(function, items)
    _end_second_run()  # here, for who takes the stream may hold a lock by then, and would meet it first
    return _stream(function, iter(items), n_workers)


def _stream(function: Callable[[Item], Result], items: Iterator[Item], n_workers: int) -> Iterator[Result]:
    chunks = iter(lambda: list(islice(items, _CHUNK)), [])
    # Spawned processes inherit no threads or locks from the caller, whatever it has loaded.
    context = get_context("spawn")
    with _expect_workers(), ProcessPoolExecutor(n_workers, context, _start_light_worker) as pool:
        begun = deque(pool.submit(_map, function, chunk) for chunk in islice(chunks, 2 * n_workers))
        while begun:
            results = begun.popleft().result()
            begun.extend(pool.submit(_map, function, chunk) for chunk in islice(chunks, 1))
            yield from results


def _map(function: Callable[[Item], Result], chunk: list[Item]) -> list[Result]:
    return [function(item) for item in chunk]


def _end_second_run() -> None:
    """End a worker that gets here while it still loads the script that started it.

    It runs all of that but what stands under `if __name__ == "__main__":`. Where nothing does, Python would
    fail here with a long trace for each worker; the process that started them says it in one line.
    """
    if getattr(current_process(), "_inheriting", False):  # what Python itself looks at
        sys.exit(1)


@contextmanager
def _expect_workers() -> Iterator[None]:
    """Raise FerError when a process of the pool ends before its work."""
    try:
        yield
    except BrokenProcessPool:
        raise FerError(
            "expected worker processes to finish their work, found one that ended early; in a script, put "
            'the code under `if __name__ == "__main__":`, since workers run everything else in it too; '
            "otherwise see whether memory ran out"
        ) from None


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, where the C library is glibc.

    A training frees and asks for the same blocks in every step. By default glibc hands large ones back to the
    kernel, which fills each page with zeros again: a step of EfficientNet-B0 took 1.6 times as long.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in _KEEP_ALL.items():
            mallopt(option, value)


def _has_gpu() -> bool:
    import torch  # takes seconds to load, and most of those who start jobs need nothing else of it

    return torch.cuda.is_available()


def _start_pool(n_workers: int, modules: Collection[str]) -> Executor:
    # The server loads once what the jobs need, in seconds, and every process begins as a copy of it.
    context = get_context("forkserver")
    context.set_forkserver_preload(["torch", "timm", *modules])
    return ProcessPoolExecutor(n_workers, context, _start_worker)


def _start_light_worker() -> None:
    import cv2

    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)


def _start_worker() -> None:
    import cv2
    import torch

    # The bar counts jobs; one per job would write over it. tqdm has read its environment by now.
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
        cv2.setNumThreads(0)


def _end_with_parent() -> None:
    # Killed, a run takes its workers along, or they would hold their trainings when it is started again.
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
