"""Jobs side by side: their order, their results, and what becomes of a failure."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psutil
import pytest
from conftest import REPO, build_command_environment

from fer_lib import jobs
from fer_lib.errors import FerError, ModelError
from fer_lib.jobs import map_side_by_side, run_side_by_side


@pytest.fixture
def threads(monkeypatch):
    """Let threads run the jobs, so that a test can look at them."""
    monkeypatch.setattr(jobs, "_start_pool", lambda n, _: ThreadPoolExecutor(n))


def describe_process(value):
    import torch

    return value, os.getpid(), torch.get_num_threads()


def test_jobs_run_in_processes_of_one_thread_and_come_back_by_name():
    found = run_side_by_side({name: partial(describe_process, name) for name in "ba"}, "jobs")
    assert list(found) == ["b", "a"]
    assert [value for value, _, _ in found.values()] == ["b", "a"]
    assert os.getpid() not in {process for _, process, _ in found.values()}
    assert {n_threads for _, _, n_threads in found.values()} == {1}


def test_job_waits_for_what_it_needs_and_the_first_of_those_that_are_ready_begins(threads, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    begun, done = [], []

    def work(name):
        begun.append(name)
        return name

    jobs = {name: partial(work, name) for name in ("student", "b0", "teacher", "baseline")}
    needs = {"student": ["b0", "teacher"], "teacher": ["b0"], "b0": ["no job"]}
    run_side_by_side(jobs, "jobs", needs, on_done=lambda name, result: done.append((name, result)))
    assert begun == ["b0", "teacher", "student", "baseline"]
    assert done == [(name, name) for name in begun]


def test_jobs_that_do_not_wait_for_one_another_overlap(threads, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    spans = {}

    def work(name):
        start = time.monotonic()
        time.sleep(0.2)
        spans[name] = start, time.monotonic()

    run_side_by_side({name: partial(work, name) for name in "ab"}, "jobs")
    assert max(start for start, _ in spans.values()) < min(end for _, end in spans.values())


def test_failure_ends_the_run_with_its_own_line_and_drops_what_has_not_begun(threads, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    begun = []

    def fail():
        raise ModelError("b0 cannot be")

    with pytest.raises(ModelError, match=r"^b0 cannot be$"):
        run_side_by_side({"b0": fail, "lite0": partial(begun.append, "lite0")}, "jobs")
    assert begun == []


def test_circle_is_told():
    with pytest.raises(ValueError, match="cycle"):
        run_side_by_side({"a": print, "b": print}, "jobs", {"a": ["b"], "b": ["a"]})


def test_stream_keeps_the_order_and_takes_few_items_ahead():
    taken = []
    items = (taken.append(i) or i for i in range(1000))
    stream = map_side_by_side(abs, items, n_workers=2)
    assert next(stream) == 0
    assert len(taken) == 5 * 8  # a chunk that is read, one in work and one waiting for each process
    assert list(stream) == list(range(1, 1000))
    assert len(taken) == 1000


def kill_self(_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_worker_that_is_killed_is_one_line():
    for run in (
        lambda: list(map_side_by_side(kill_self, range(2), n_workers=2)),
        lambda: run_side_by_side({"a": partial(kill_self, 0)}, "jobs"),
    ):
        with pytest.raises(FerError, match="expected worker processes to finish their work, found one that"):
            run()


def run_script(folder, *lines):
    script = folder / "script.py"
    script.write_text("\n".join(lines))
    command = [sys.executable, str(script)]
    return subprocess.Popen(
        command, env=build_command_environment(REPO), stdout=-1, stderr=-1, text=True, cwd=folder
    )


def test_script_without_a_guard_ends_and_its_workers_say_nothing(tmp_path):
    process = run_script(
        tmp_path,
        "from functools import partial",
        "from fer_lib.jobs import run_side_by_side",
        "run_side_by_side({name: partial(int, 3) for name in 'ab'}, 'jobs')",
    )
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert told.count("Traceback") == 1
    assert "put the code under `if __name__" in told.splitlines()[-1]


def test_killed_script_takes_the_workers_of_its_stream_along(tmp_path):
    process = run_script(
        tmp_path,
        "import time",
        "from fer_lib.jobs import map_side_by_side",
        "if __name__ == '__main__':",
        "    stream = map_side_by_side(abs, range(1000), n_workers=2)",
        "    print(next(stream), flush=True)",
        "    time.sleep(60)",
    )
    assert process.stdout.readline() == "0\n"
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    process.kill()
    process.communicate(timeout=60)  # which ends when they have closed its pipe
    assert psutil.wait_procs(workers, timeout=30)[1] == []


def test_no_jobs_are_no_work():
    assert run_side_by_side({}, "jobs") == {}


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_memory_that_was_freed_is_kept():
    # A block of 64 MB, asked for again and again: by default each time new pages, 16,384 of 4 KiB.
    code = """
import resource, sys
import numpy as np
from fer_lib.jobs import keep_freed_memory

def count_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        np.empty(8 * 2**20).fill(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "keep":
    keep_freed_memory()
count_faults()
print(count_faults())
"""
    counts = {
        mode: int(subprocess.run([sys.executable, "-c", code, mode], capture_output=True, check=True).stdout)
        for mode in ("keep", "default")
    }
    assert counts["keep"] < 1000 < counts["default"]
