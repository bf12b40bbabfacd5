"""Describe the processor that numbers were computed on."""

import os
import platform
import sys
from pathlib import Path

from threadpoolctl import threadpool_info

VENDORS = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel"}


def describe_cpu() -> dict[str, str | int]:
    """Return what of the processor may decide the last bits of a number.

    vendor, name: as the system gives them.   instructions: the widest that torch uses here, or `unknown` when
    it is not loaded.   blas: the libraries that multiply matrices, with their version and kernels.   threads:
    of torch, or of the machine.
    """
    torch = sys.modules.get("torch")  # importing it here only to ask would take seconds
    blas = [info for info in threadpool_info() if info["user_api"] == "blas"]
    return {
        "vendor": VENDORS.get(found := _read_cpuinfo("vendor_id"), found) or platform.machine(),
        "name": describe_machine(),
        "instructions": torch.backends.cpu.get_cpu_capability() if torch else "unknown",
        "blas": ", ".join(
            sorted({f"{i['internal_api']} {i['version']} {i.get('architecture', '')}" for i in blas})
        ),
        "threads": torch.get_num_threads() if torch else os.cpu_count() or 1,
    }


def describe_machine() -> str:
    """Return the processor's name as the system gives it."""
    return _read_cpuinfo("model name") or platform.processor() or platform.machine()


def _read_cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # which only Linux has
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")
