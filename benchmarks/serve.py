"""Load `fer serve` on the loopback: throughput and waiting times, and what overload does.

    .venv-scale/bin/python benchmarks/serve.py [--minutes 10] [--variant balanced]

First as many requests at a time as keep every worker busy, by workers and batch size. Then, at the fastest
setting, requests arrive at twice the rate that it can answer. Each asks about a drawn photograph with two
faces. Clients and server share this machine. Writes reports/scale/measurements/serve.json.
"""

import argparse
import http.client
import io
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from demo_faces.clips import draw_scene
from fer_lib.scale.measurements import write_measurements

SETTINGS = [(workers, batch) for workers in (1, 2) for batch in (1, 8)]
SECONDS, OVERLOAD, PATIENCE = 20, 2.0, 60


@contextmanager
def run_server(variant: str, workers: int, batch: int) -> Iterator[int]:
    """Start a server and yield its port once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        "--port",
        str(port),
        "--variant",
        variant,
        "--workers",
        str(workers),
        "--batch-size",
        str(batch),
    ]
    server = subprocess.Popen(
        [sys.executable, "-m", "fer_lib", "serve", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while ask(port, "GET", "/health")["status"] != 200:
            if server.poll() is not None:
                raise SystemExit("error: `fer serve` ended; run it by hand")
            time.sleep(0.2)
        yield port
    finally:
        server.terminate()
        server.wait()


def ask(port: int, method: str = "POST", path: str = "/predict", body: bytes | None = None) -> dict[str, Any]:
    """Return the status of an answer, None for none, its seconds, and whether it holds the two faces."""
    began = time.perf_counter()
    connection, status, is_right = (
        http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE),
        None,
        False,
    )
    try:
        connection.request(method, path, body, {"Content-Type": "image/jpeg"})
        answer = connection.getresponse()
        content, status = answer.read(), answer.status
        is_right = path == "/predict" and status == 200 and len(json.loads(content)["faces"]) == 2
    except (OSError, http.client.HTTPException, ValueError):
        pass
    finally:
        connection.close()
    return {"began": began, "seconds": time.perf_counter() - began, "status": status, "is_right": is_right}


def saturate(port: int, photo: bytes, clients: int) -> list[dict[str, Any]]:
    """Let each client ask again as soon as it is answered, for SECONDS."""
    answers, ends = list[dict[str, Any]](), time.perf_counter() + SECONDS

    def keep_asking() -> None:
        while time.perf_counter() < ends:
            answers.append(ask(port, body=photo))

    threads = [threading.Thread(target=keep_asking) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def overload(port: int, photo: bytes, rate: float, minutes: float) -> pd.DataFrame:
    """Send `rate` requests a second, whatever becomes of them; return a row for each."""
    began = time.perf_counter()
    with ThreadPoolExecutor(256) as pool:
        futures = []
        for number in range(int(60 * minutes * rate)):
            time.sleep(max(0.0, began + number / rate - time.perf_counter()))
            futures.append(pool.submit(ask, port, body=photo))
        table = pd.DataFrame([future.result() for future in futures])
    minute = ((table["began"] - began) // 60).clip(upper=np.ceil(minutes) - 1)  # the last may start late
    return table.assign(minute=minute.astype(int))


def describe(answers: pd.DataFrame) -> dict[str, float]:
    """Return the milliseconds after which accepted requests were answered, by quantile."""
    accepted = answers.loc[answers["status"] == 200, "seconds"]
    return {f"p{round(100 * q)}_ms": 1e3 * float(accepted.quantile(q)) for q in (0.5, 0.95, 0.99)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--variant", default="balanced")
    options = parser.parse_args()
    file, loads = io.BytesIO(), []
    Image.fromarray(draw_scene(2)[0]).save(file, "jpeg")
    photo = file.getvalue()
    for workers, batch in SETTINGS:
        with run_server(options.variant, workers, batch) as port:
            saturate(port, photo, 1)
            answers = pd.DataFrame(saturate(port, photo, 2 * workers * batch))
        took = (answers["began"] + answers["seconds"]).max() - answers["began"].min()
        per_second = float((answers["status"] == 200).sum() / took)
        loads.append({"workers": workers, "batch": batch, "per_second": per_second, **describe(answers)})
        print(loads[-1], flush=True)
    best = max(loads, key=lambda load: load["per_second"])
    rate = OVERLOAD * best["per_second"]
    with run_server(options.variant, best["workers"], best["batch"]) as port:
        table = overload(port, photo, rate, options.minutes)
    statuses = table["status"].astype("Int64").astype(str)
    by_status = {status: int(n) for status, n in statuses.value_counts().items()}
    refused = table.loc[table["status"] == 503, "seconds"]
    found = {
        "variant": options.variant,
        "loads": loads,
        "overload": {
            "minutes": options.minutes,
            "workers": best["workers"],
            "batch": best["batch"],
            "per_second_sent": rate,
            "by_status": by_status,
            "accepted_without_answer": int((~table["status"].isin([200, 503])).sum()),
            "accepted_with_other_faces": int(((table["status"] == 200) & ~table["is_right"]).sum()),
            "per_second_answered": float((table["status"] == 200).sum() / (60 * options.minutes)),
            "refused_p99_ms": 1e3 * float(refused.quantile(0.99)),
            **describe(table),
            "p99_ms_by_minute": [describe(group)["p99_ms"] for _, group in table.groupby("minute")],
        },
    }
    print(write_measurements("serve", found), found["overload"])


if __name__ == "__main__":
    main()
