"""Start Ray on this machine, or join a cluster of others."""

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from fer_lib.errors import FerError

OVERHEAD = 2
"""Cores, as Ray counts them, besides the workers': to write, and to leave out what is done already."""


@contextmanager
def start_ray(address: str | None, workers: int | None) -> Iterator[int]:
    """Start Ray here, or join a cluster at an address; yield the number of workers, each with a core.

    Raises FerError when no cluster answers, there are too few cores, or Ray gives up inside the block.
    """
    os.environ |= {
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_BACKEND_LOG_LEVEL": "fatal",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "`ray_remote_args`")  # nothing else bounds the retries of a worker yet
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        workers = workers or os.cpu_count() or 1
        options |= {"num_cpus": workers + OVERHEAD, "include_dashboard": False}
    else:
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")  # else it tries for many minutes
    try:
        ray.init(address or "local", **options)
        n_cores = int(ray.cluster_resources().get("CPU", 0))
        workers = workers or max(1, n_cores - OVERHEAD)
        if workers + OVERHEAD > n_cores:
            raise FerError(
                f"Ray: expected {workers + OVERHEAD} cores, {OVERHEAD} besides the workers, found {n_cores}; "
                "use fewer --workers or a larger cluster"
            )
        yield workers
    except (ray.exceptions.RayError, ConnectionError) as error:
        causes = re.findall(r"^\w[\w.]*(?:Error|Exception)\b.*", str(error), re.MULTILINE)
        cause = " ".join((causes or [str(error)])[-1].split())
        remedy = "run the same command again to resume"
        if address and not ray.is_initialized():
            remedy = "start it, or set RAY_AUTH_MODE=token if it asks for a token"
        raise FerError(f"Ray: {cause[:200]}; {remedy}") from None
    finally:
        ray.shutdown()


def refuse_several_machines() -> None:
    """Raise FerError on a cluster whose machines cannot all reach a path of this one."""
    n_machines = sum(node["Alive"] for node in ray.nodes())
    if n_machines > 1:
        raise FerError(
            f"Ray: expected addresses that {n_machines} machines reach, found a path of one; use a store, or "
            "file:// for a folder that all of them share"
        )
