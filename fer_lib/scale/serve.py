"""Serve a model over HTTP with LitServe: an image in, its faces out as JSON. No image is written."""

import asyncio
import os
import signal
import socket
from collections.abc import Sequence
from secrets import compare_digest
from typing import Annotated, Any

import joblib
import litserve
import numpy as np
from fastapi import Body
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fer_lib.data.images import read_image
from fer_lib.errors import FerError, MediaError
from fer_lib.inference.recognizer import Recognizer

PREDICT = "/predict"

OPEN = ("/health", "/docs", "/openapi.json")
"""Paths that need no token: whether the server is up, and how it is used."""

LOOPBACK = "127.0.0.1"

MAX_BYTES = 25_000_000
"""Of a request; phone photos are smaller."""

PER_WORKER = 16
"""Requests in flight for each worker. A photo takes some hundredths of a second, the worst one second."""

READ_SECONDS = 10
"""In which a request's body must arrive."""

ANSWER_SECONDS = 30
"""In which an admitted request is answered; after that, or when its worker has died, it is told 504."""

BATCH_SECONDS = 0.005
"""A worker that takes batches waits so long for one to fill."""

TOKEN = "FER_SERVER_TOKEN"
"""The environment variable with the token that a request must carry: `Authorization: Bearer <token>`."""

REQUESTS = Counter("fer_requests_total", "Answers by HTTP status.", ["status"])
DURATION = Histogram("fer_request_seconds", "From a request's last byte to its answer.")
IN_FLIGHT = Gauge("fer_requests_in_flight", "Requests that were admitted and have no answer yet.")

Image = Annotated[bytes, Body(media_type="image/*", description="The bytes of an image file.")]


class FaceAPI(litserve.LitAPI):
    """What a worker does with a request, or with the batch that has come in by the time it is free."""

    def __init__(self, model: str, variant: str | None, batch_size: int):
        super().__init__(max_batch_size=batch_size, batch_timeout=BATCH_SECONDS, api_path=PREDICT)
        self.model, self.variant = model, variant

    def setup(self, device: str) -> None:
        """Load the model, with one thread: there is a worker for each core."""
        self.recognizer = Recognizer(self.model, variant=self.variant, threads=1)

    def decode_request(self, request: Image) -> bytes:
        """Return the image's bytes."""
        return request

    def predict(self, images: Sequence[bytes] | bytes) -> Any:
        """Return for each image its `faces`, as `fer predict --json` writes them, or an `error`."""
        if isinstance(images, bytes):  # LitServe makes no batch of one
            return self.predict([images])[0]
        answers: list[dict[str, Any]] = [{} for _ in images]
        found: dict[int, tuple[np.ndarray, Any]] = {}
        for number, image in enumerate(images):
            try:
                pixels = read_image(image)
                found[number] = pixels, self.recognizer.detector.detect(pixels)
            except Exception as error:  # whatever one image does to decoder or detector, it stops no others
                is_told = isinstance(error, MediaError)
                answers[number] = {"error": str(error) if is_told else f"{type(error).__name__}: {error}"}
        for number, faces in zip(found, self.recognizer.recognize_all(list(found.values())), strict=True):
            answers[number] = {"faces": [face.to_dict() for face in faces]}
        return answers

    def encode_response(self, output: dict[str, Any]) -> JSONResponse:
        """Return the answer: 422 where the image cannot be read."""
        # Not an HTTPException, with which LitServe would answer the whole batch.
        return JSONResponse({"detail": output["error"]}, 422) if "error" in output else JSONResponse(output)


class BatchedFaceAPI(FaceAPI):
    """The same where LitServe makes batches: it would stack images, which differ in size."""

    def batch(self, inputs: Sequence[bytes]) -> Sequence[bytes]:
        """Return the images as they are."""
        return inputs

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the answers as they are."""
        return output


class AdmissionControl:
    """Reject at once what is over capacity, too large or without the token; what is admitted gets an answer.

    token: "" where none is needed.   capacity: of requests in flight, and of those whose body is coming in.
    """

    def __init__(self, app: ASGIApp, token: str, capacity: int):
        self.app, self.token, self.capacity = app, token.encode(), capacity
        self.n_reading = self.n_in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take an ASGI request."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"authorization", b"")
        if self.token and not compare_digest(given, b"Bearer " + self.token):
            answer = PlainTextResponse("the token is missing or wrong", 401, {"WWW-Authenticate": "Bearer"})
            await answer(scope, receive, send)
        elif scope["path"] != PREDICT:
            await self.app(scope, receive, send)
        elif headers.get(b"content-type", b"").startswith(b"multipart/"):
            form = "expected the image itself as the body, found a form; `curl --data-binary @FILE` sends it"
            await PlainTextResponse(form, 415)(scope, receive, send)
        else:
            await self._admit(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 500

        async def note(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            body = await self._read(receive) if self.n_reading < self.capacity else None
        except TimeoutError:
            await PlainTextResponse("the image came in too slowly", 408)(scope, receive, note)
        except ClientDisconnect:
            status = 499  # as nginx counts them
        else:
            if body is None or self.n_in_flight >= self.capacity:
                busy = PlainTextResponse("too many requests at once; try again", 503, {"Retry-After": "1"})
                await busy(scope, receive, note)
            elif len(body) > MAX_BYTES:
                await PlainTextResponse(f"more than {MAX_BYTES:,} bytes", 413)(scope, receive, note)
            else:
                await self._answer(scope, body, receive, note)
        finally:
            REQUESTS.labels(status).inc()

    async def _read(self, receive: Receive) -> bytes:
        """Return a request's body; of one that is too large, more than `MAX_BYTES`, the rest is dropped."""
        body, is_whole = bytearray(), False
        self.n_reading += 1
        try:
            async with asyncio.timeout(READ_SECONDS):
                while not is_whole:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    if len(body) <= MAX_BYTES:
                        body += message.get("body", b"")
                    is_whole = not message.get("more_body", False)
        finally:
            self.n_reading -= 1
        return bytes(body)

    async def _answer(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        self.n_in_flight += 1
        try:
            with IN_FLIGHT.track_inprogress(), DURATION.time():
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self.app(scope, replay, send)
        except TimeoutError:  # LitServe waits for a worker that has died
            await PlainTextResponse("no answer in time; try again", 504)(scope, receive, send)
        finally:
            self.n_in_flight -= 1


def build_server(
    model: str, variant: str | None, workers: int, batch_size: int, token: str
) -> litserve.LitServer:
    """Return the server of a model; see `serve`."""
    Recognizer(model, variant=variant)  # what is wrong with it is told here, and not by each worker
    api = FaceAPI if batch_size == 1 else BatchedFaceAPI
    server = litserve.LitServer(
        api(model, variant, batch_size),
        accelerator="cpu",
        workers_per_device=workers,
        timeout=ANSWER_SECONDS,
        restart_workers=True,
        middlewares=[(AdmissionControl, {"token": token, "capacity": PER_WORKER * workers})],
    )

    @server.app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return server


def serve(
    model: str, variant: str | None, host: str, port: int, workers: int | None = None, batch_size: int = 1
) -> None:
    """Answer requests until the process is stopped.

    Beside `/predict` there are `/health`, `/info`, `/metrics` for Prometheus and `/docs`. A request whose
    worker dies is answered by 504 after `ANSWER_SECONDS`; another worker takes its place.

    Parameters
    ----------
    model, variant
        As of `Recognizer`.
    host
        `LOOPBACK`, or an address that other machines reach: then a token is needed, see `TOKEN`.
    workers
        Processes with the model; None: as many as there are cores.
    batch_size
        Images whose faces are classified at once, where so many wait. On a CPU it hardly matters.

    Raises
    ------
    FerError
        Without a token, for a host that others reach.
    """
    token = os.environ.get(TOKEN, "")
    if not token and host != LOOPBACK:
        raise FerError(f"--host {host}: expected a token in {TOKEN}, found none; others could use the server")
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise FerError(f"--port {port}: {error.strerror}; name another") from None
    server = build_server(model, variant, workers or joblib.cpu_count(), batch_size, token)
    print(f"http://{host}:{port}/docs describes the API; Ctrl-C ends it", flush=True)
    own = os.getpid()

    def stop(*_: Any) -> None:
        # LitServe ends its processes on Ctrl-C alone; a terminated one would leave them behind. A child that
        # inherits this has ended its work by now.
        raise KeyboardInterrupt if os.getpid() == own else SystemExit

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    server.run(host, port, generate_client_file=False, num_api_servers=1, log_level="warning")
