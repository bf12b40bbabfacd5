"""A real server on the loopback. These tests need the extra `serve`."""

import asyncio
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from PIL import Image

from demo_faces.clips import draw_scene
from fer_lib.cli import main as cli
from fer_lib.inference.recognizer import Recognizer
from fer_lib.scale import serve
from fer_lib.scale.serve import MAX_BYTES, PER_WORKER, TOKEN

SECRET_TOKEN = "open sesame"

SECONDS = 5
"""In which these servers answer, or say that they cannot."""


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "two.jpg"
    Image.fromarray(draw_scene(2)[0]).save(path)
    return path


def find_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def port():
    """Start a server with one worker and a token; return its port."""
    yield from run_server("--batch-size", "4")


@pytest.fixture(scope="module")
def port_of_one():
    """Start a server whose worker takes one image after the other; return its port."""
    yield from run_server()


def run_server(*options):
    """Start a server that gives up after some seconds; yield its port once it answers, then end it."""
    port = find_port()
    code = (
        "import sys; from fer_lib.cli import main; from fer_lib.scale import serve; "
        f"serve.ANSWER_SECONDS = {SECONDS}; sys.exit(main.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "serve", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(
        [*command, "--variant", "tiny", *options], env={**os.environ, TOKEN: SECRET_TOKEN}
    )
    try:
        deadline = time.monotonic() + 90
        while ask(port, "GET", "/health", token=None)[0] != 200:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield port
    finally:
        family = psutil.Process(server.pid).children(recursive=True)
        server.terminate()
        server.wait(20)
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive


def find_workers(port):
    """Return the processes of the server at `port` that hold the model, which are spawned."""
    parent = next(p for p in psutil.Process().children() if str(port) in p.cmdline())
    return [p for p in parent.children() if "spawn_main" in " ".join(p.cmdline())]


def ask(port, method, path, body=None, token=SECRET_TOKEN, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        if token:
            headers["Authorization"] = f"Bearer {token}"
        connection.request(method, path, body, {"Content-Type": "image/jpeg", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.headers)
    except ConnectionRefusedError:
        return None, b"", {}
    finally:
        connection.close()


def test_faces_are_those_of_the_library(port, photo):
    status, body, _ = ask(port, "POST", "/predict", photo.read_bytes())
    assert status == 200
    expected = [face.to_dict() for face in Recognizer(variant="tiny")(photo)]
    found = json.loads(body)["faces"]
    assert [face["label"] for face in found] == [face["label"] for face in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["box"] == other["box"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-3)


def test_images_that_cannot_be_read_spoil_no_others(port, photo):
    contents = [photo.read_bytes(), b"no image"] * 6
    with ThreadPoolExecutor(len(contents)) as pool:
        answers = list(pool.map(lambda content: ask(port, "POST", "/predict", content), contents))
    assert [status for status, *_ in answers] == [200, 422] * 6
    assert all(len(json.loads(body)["faces"]) == 2 for _, body, _ in answers[::2])


def test_what_is_no_image_is_told_in_a_sentence(port):
    status, body, _ = ask(port, "POST", "/predict", b"no image")
    assert status == 422
    assert json.loads(body)["detail"].startswith("expected an image, found a file that is none")


def test_form_is_told_how_to_send_an_image(port, photo):
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    status, body, _ = ask(port, "POST", "/predict", photo.read_bytes(), **form)
    assert (status, b"--data-binary" in body) == (415, True)


def test_port_in_use_gets_one_line(port, capsys):
    assert cli.main(["serve", "--port", str(port)]) == 1
    told = rf"error: --port {port}: Address already in use.*; name another\n"
    assert re.fullmatch(told, capsys.readouterr().err)


@pytest.mark.parametrize("token", [None, "guess", SECRET_TOKEN[:-1]])
def test_without_the_token_nothing_but_health_is_answered(port, photo, token):
    for path in ("/predict", "/metrics", "/info"):
        assert ask(port, "POST" if path == "/predict" else "GET", path, photo.read_bytes(), token)[0] == 401


def test_too_large_a_request_is_refused(port):
    assert ask(port, "POST", "/predict", bytes(MAX_BYTES + 1))[0] == 413

    def send():
        for _ in range(MAX_BYTES // 100_000 + 1):
            yield bytes(100_000)

    assert ask(port, "POST", "/predict", send())[0] == 413  # in chunks


def test_overload_is_told_at_once_and_what_is_let_in_is_answered(port, photo):
    content, n_asked = photo.read_bytes(), 4 * PER_WORKER
    with ThreadPoolExecutor(n_asked) as pool:
        answers = list(pool.map(lambda _: ask(port, "POST", "/predict", content), range(n_asked)))
    statuses = [status for status, *_ in answers]
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= PER_WORKER
    assert all(headers["retry-after"] == "1" for status, _, headers in answers if status == 503)
    assert ask(port, "POST", "/predict", content)[0] == 200
    metrics = ask(port, "GET", "/metrics")[1].decode()
    assert f'fer_requests_total{{status="503"}} {statuses.count(503)}.0' in metrics
    assert "fer_requests_in_flight 0.0" in metrics


def test_paths_and_schema_are_published(port):
    schema = json.loads(ask(port, "GET", "/openapi.json")[1])
    assert schema["paths"]["/predict"]["post"]["requestBody"]["content"].keys() == {"image/*"}
    assert ask(port, "GET", "/docs")[0] == 200


def test_others_are_let_in_with_a_token_alone(capsys, monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)
    assert cli.main(["serve", "--host", "0.0.0.0"]) == 1
    assert capsys.readouterr().err.startswith(
        f"error: --host 0.0.0.0: expected a token in {TOKEN}, found none"
    )


def test_client_that_leaves_gives_its_place_back(port, photo):
    content = photo.read_bytes()
    for _ in range(2 * PER_WORKER):
        with socket.create_connection(("127.0.0.1", port)) as client:
            head = f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRET_TOKEN}\r\n"
            client.sendall(
                f"{head}Content-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            )
            client.sendall(content)
    deadline = time.monotonic() + 60
    while b"fer_requests_in_flight 0.0" not in ask(port, "GET", "/metrics")[1]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert ask(port, "POST", "/predict", content)[0] == 200


def test_what_a_dead_worker_had_is_answered_and_another_takes_its_place(port_of_one, photo):
    port, content = port_of_one, photo.read_bytes()
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, port, "POST", "/predict", content) for _ in range(8)]
        while not any(answer.done() for answer in answers):  # it is at work
            time.sleep(0.005)
        (worker,) = find_workers(port)
        worker.kill()
        statuses = [answer.result()[0] for answer in answers]
    assert set(statuses) <= {200, 504}
    deadline = time.monotonic() + 60
    while ask(port, "POST", "/predict", content)[0] != 200:
        assert time.monotonic() < deadline
    assert find_workers(port) != [worker]
    assert b"fer_requests_in_flight 0.0" in ask(port, "GET", "/metrics")[1]


def test_body_that_comes_too_slowly_is_given_up(monkeypatch):
    monkeypatch.setattr(serve, "READ_SECONDS", 0.05)
    assert admit({"type": "http.request", "body": b"half", "more_body": True})[0]["status"] == 408


def test_half_a_body_is_not_looked_at():
    half = {"type": "http.request", "body": b"half", "more_body": True}
    assert admit(half, {"type": "http.disconnect"}) == []


def admit(*messages):
    """Return what a client is told that sends these messages, and then nothing; what is admitted fails."""
    sent, waiting = [], list(messages)

    async def receive():
        if waiting:
            return waiting.pop(0)
        return await asyncio.sleep(1)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": "/predict", "headers": []}
    control = serve.AdmissionControl(None, "", capacity=1)
    asyncio.run(control(scope, receive, send))
    assert control.n_reading == control.n_in_flight == 0
    return sent
