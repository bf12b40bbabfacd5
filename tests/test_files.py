import subprocess
import sys

import pytest

from fer_lib.errors import FerError
from fer_lib.files import hold_lock, write_atomically


def test_written_file_replaces_the_old_one_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "file.txt"
    for content in (b"one", b"two"):
        write_atomically(path, content)
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "text, not bytes")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_lock_keeps_a_second_process_out_and_falls_with_the_first(tmp_path):
    path = tmp_path / "run.lock"
    hold = f"""
import time
from pathlib import Path
from fer_lib.files import hold_lock
with hold_lock(Path({str(path)!r})):
    print("held", flush=True)
    time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(FerError, match=r"run\.lock: another run is at work here"), hold_lock(path):
        pass
    process.kill()
    process.wait()
    with hold_lock(path):
        pass
