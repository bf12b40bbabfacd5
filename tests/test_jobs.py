"""Jobs side by side: their order, their results, and what becomes of a failure."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from fer_lib import jobs
from fer_lib.errors import ModelError
from fer_lib.jobs import run_side_by_side


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


def test_no_jobs_are_no_work():
    assert run_side_by_side({}, "jobs") == {}
