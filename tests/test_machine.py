import torch
from numpy.__config__ import CONFIG

from fer_lib import machine
from fer_lib.machine import describe_cpu

CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) CPU: fast
processor\t: 1
vendor_id\t: GenuineIntel
"""


def read_as(monkeypatch, tmp_path, content):
    """Describe the processor of a machine whose system says `content` of it; None: it says nothing."""
    path = tmp_path / "cpuinfo"
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr(machine, "Path", lambda _: path)
    return describe_cpu()


def test_processor_is_called_as_the_system_calls_it(monkeypatch, tmp_path):
    found = read_as(monkeypatch, tmp_path, CPUINFO)
    assert (found["vendor"], found["name"]) == ("Intel", "Intel(R) Xeon(R) CPU: fast")
    other = read_as(monkeypatch, tmp_path, CPUINFO.replace("GenuineIntel", "HygonGenuine"))
    assert other["vendor"] == "HygonGenuine"


def test_processor_without_a_name_is_told_by_its_architecture(monkeypatch, tmp_path):
    monkeypatch.setattr(machine.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    found = read_as(monkeypatch, tmp_path, None)
    assert (found["vendor"], found["name"]) == ("arm64", "arm64")


def test_what_may_decide_the_last_bits_is_named():
    found = describe_cpu()
    assert found["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert found["threads"] == torch.get_num_threads()
    blas = CONFIG["Build Dependencies"]["blas"]  # of numpy's own build
    if "openblas" in blas["name"]:  # macOS's own tells nothing of itself
        assert f"openblas {blas['version']}" in found["blas"]


def test_torch_is_not_loaded_only_to_be_asked(monkeypatch):
    monkeypatch.delitem(machine.sys.modules, "torch")
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 7)
    found = describe_cpu()
    assert (found["instructions"], found["threads"]) == ("unknown", 7)
    assert "torch" not in machine.sys.modules
