"""Run trainings, and other long jobs, side by side: one process per core, each on one thread."""

import os
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from functools import partialmethod
from graphlib import TopologicalSorter
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

import torch
from tqdm import tqdm

Result = TypeVar("Result")


def run_side_by_side(
    jobs: Mapping[str, Callable[[], Result]],
    title: str,
    needs: Mapping[str, Collection[str]] | None = None,
    on_done: Callable[[str, Result], Any] | None = None,
) -> dict[str, Result]:
    """Run every job in a process of its own; return the results by name, in the order of `jobs`.

    Small networks on small faces keep two threads busy half of the time; two processes of one thread each are
    faster, and what they compute does not depend on the number of cores. On a GPU one job runs at a time.

    Parameters
    ----------
    jobs
        Name to a function that can be pickled, the most urgent first.
    title
        Of the progress bar.
    needs
        Job to those that must be done before it; names that are no jobs count as done.
    on_done
        Is called here with the name and result of each job as it ends.

    Raises
    ------
    Exception
        The first that a job raises; those that have not begun are dropped.
    """
    wanted = {name: [other for other in (needs or {}).get(name, ()) if other in jobs] for name in jobs}
    order, urgency = TopologicalSorter(wanted), list(jobs)
    ready: list[str] = []
    order.prepare()
    results: dict[str, Result] = {}
    running: dict[Future[Result], str] = {}
    n_workers = 1 if torch.cuda.is_available() else min(os.cpu_count() or 1, len(jobs) or 1)
    with (
        _start_pool(n_workers) as pool,
        tqdm(total=len(jobs), desc=title, unit="job", dynamic_ncols=True) as bar,
    ):
        try:
            while order.is_active():
                ready = sorted([*ready, *order.get_ready()], key=urgency.index)
                while ready and len(running) < n_workers:
                    name = ready.pop(0)
                    running[pool.submit(jobs[name])] = name
                bar.set_postfix_str(", ".join(running.values()))
                done = wait(running, return_when=FIRST_COMPLETED).done
                for future in sorted(done, key=lambda ended: ended.exception() is not None):  # failures last
                    name = running.pop(future)
                    results[name] = future.result()
                    order.done(name)
                    bar.update()
                    if on_done:
                        on_done(name, results[name])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {name: results[name] for name in jobs}


def _start_pool(n_workers: int) -> Executor:
    return ProcessPoolExecutor(n_workers, get_context("spawn"), _start_worker)


def _start_worker() -> None:
    # The bar counts jobs; one per job would write over it. tqdm has read its environment by now.
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)
    # Killed, a run takes its workers along, or they would hold their trainings when it is started again.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if not torch.cuda.is_available():
        import cv2

        torch.set_num_threads(1)
        cv2.setNumThreads(0)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
