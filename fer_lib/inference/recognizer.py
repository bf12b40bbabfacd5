"""Recognise the emotions of the faces in an image; the app, the command line and the notebooks call this.

With ONNX Runtime, the default, nothing here needs torch, and a model is ready in half a second.
"""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from fer_lib.data.detector import SMALLEST_FACE, Detection, Detector
from fer_lib.data.framing import FER2013_FRAMING, Framing, cut_face
from fer_lib.data.images import ImageSource, read_image
from fer_lib.errors import ModelError
from fer_lib.inference.faces import Emotion, Face, clip_box
from fer_lib.inference.hub import download_model
from fer_lib.inference.registry import (
    DEFAULT_MODEL,
    Config,
    find_checkpoint,
    find_variant,
    list_variants,
    read_model,
)
from fer_lib.labels import get_group
from fer_lib.models.checkpoints import WEIGHTS_NAME
from fer_lib.models.preprocessing import Preprocessing, preprocess, resize_face
from fer_lib.onnx_session import open_session

if TYPE_CHECKING:
    import onnxruntime

    from fer_lib.inference.baseline import Baseline
    from fer_lib.models.build import Checkpoint

INPUT, OUTPUT = "image", "logits"
"""The names in every ONNX file that `export` writes: float32 (N, 3, S, S) to float32 (N, C)."""

LARGEST_CROP = 64
"""Pixels: images no larger are taken for faces that were cut out already."""

BATCH_SIZE = 16
"""Crops that go through the network at once: a folder of any size needs no more memory than these. More of
them outgrow a CPU's cache, and are a tenth slower.
"""


class Recognizer:
    """Finds faces and predicts their emotions. One object serves any number of threads.

    Pickled, for other processes, it is its folder and settings: they open the network anew.
    """

    def __init__(
        self,
        model: str | Path = DEFAULT_MODEL,
        *,
        backend: str | None = None,
        device: str = "cpu",
        threads: int | None = None,
        abstain_below: float | None = None,
        variant: str | None = None,
    ):
        """Open a model.

        Parameters
        ----------
        model
            A release's name, `<dataset>/<name>`, or the folder of a checkpoint.
        backend
            `onnx` or `torch`; None: ONNX Runtime where the model was exported, else PyTorch.
        device
            `cpu` or `cuda`.
        threads
            Of the network and, for the whole process, of OpenCV; None: as many as there are cores.
        abstain_below
            A confidence, in place of the model's own threshold.
        variant
            One that `registry.list_variants` lists; None: the model's default.

        Raises
        ------
        ModelError
            In one line, when the model is missing, damaged or cannot run so.
        """
        if threads is not None and threads < 1:
            raise ModelError(f"threads: expected 1 or more, found {threads}; leave it out for all cores")
        if abstain_below is not None and not 0 <= abstain_below <= 1:
            raise ModelError(f"abstain_below: expected a confidence from 0 to 1, found {abstain_below}")
        folder = find_checkpoint(model)
        self.folder = folder
        self.config = read_model(folder)
        self.emotions: tuple[str, ...] = tuple(self.config["emotions"])
        variants = list_variants(self.config)
        self.variant = find_variant(self.config, variant, folder.name)
        own = variants[self.variant]
        framing = self.config.get("framing")
        self.framing = Framing.from_dict(framing) if framing else FER2013_FRAMING
        self.abstain_below = own.get("abstain_below", 0.0) if abstain_below is None else abstain_below
        self._voters = [variants[name] for name in own.get("members", [self.variant])]
        self._vote_temperature = own.get("vote_temperature", 1.0)
        self.device, self.threads = device, threads
        if threads is not None:
            cv2.setNumThreads(threads)
        if backend not in (None, "onnx", "torch"):
            raise ModelError(f"backend: expected one of onnx, torch, found {backend!r}")
        if backend == "torch" and any(voter.get("quantized") for voter in self._voters):
            raise ModelError(
                f"backend: {self.variant!r} runs in ONNX Runtime alone; leave out 'torch', or choose a "
                "variant that is not in int8"
            )
        missing = [voter["file"] for voter in self._voters if not (folder / voter["file"]).is_file()]
        self.backend = backend or ("torch" if missing else "onnx")
        if self.backend == "onnx" and missing:
            raise ModelError(f"{folder}: expected {missing[0]}, found none; use the backend `torch`")
        self.detector = Detector()
        open_network = self._open_onnx if self.backend == "onnx" else self._open_torch
        self._networks = [
            (Preprocessing.from_dict(voter["preprocessing"]), open_network(voter)) for voter in self._voters
        ]

    def __reduce__(self) -> tuple[Any, ...]:
        # A session cannot be copied: the other process opens its own.
        names = ("backend", "device", "threads", "abstain_below", "variant")
        settings = {name: getattr(self, name) for name in names}
        return partial(type(self), self.folder.absolute(), **settings), ()

    @classmethod
    def from_pretrained(cls, repository: str, revision: str | None = None, **settings: Any) -> "Recognizer":
        """Return a model from the Hugging Face Hub, where `fer release --hub-folder` lets one be uploaded.

        Its files are downloaded once and kept in the Hub's cache.

        Parameters
        ----------
        repository
            `owner/name` on the Hub.
        revision
            A branch, a tag or a commit; None: the newest.
        settings
            As those of the constructor.

        Raises
        ------
        ModelError
            When the files are neither in the cache nor to be had, and as the constructor.
        """
        return cls(download_model(repository, revision), **settings)

    def __call__(
        self, image: ImageSource, *, min_face: float = SMALLEST_FACE, baseline: "Baseline | None" = None
    ) -> list[Face]:
        """Return the faces of an image, the largest first.

        It is whatever `images.read_image` takes; arrays are RGB. `min_face`, as in `Detector.detect`, trades
        small faces for speed. `baseline` is that of the person whom the image shows. Raises MediaError when
        it cannot be read.
        """
        pixels = read_image(image)
        return self.recognize(pixels, self.detector.detect(pixels, min_face), baseline)

    def recognize(
        self, image: np.ndarray, detections: Sequence[Detection], baseline: "Baseline | None" = None
    ) -> list[Face]:
        """Return the faces that were detected in a uint8 (H, W, 3) RGB image, classified in one pass.

        They come in the order of `detections`; one that lies wholly outside the image is left out.
        """
        return self.recognize_all([(image, detections)], baseline)[0]

    def recognize_all(
        self,
        images: Sequence[tuple[np.ndarray, Sequence[Detection]]],
        baseline: "Baseline | None" = None,
    ) -> list[list[Face]]:
        """Return what `recognize` does for each of several images, with the faces of all in one pass."""
        cut = [
            (number, face, box, cut_face(image, face.landmarks, self.framing))
            for number, (image, detections) in enumerate(images)
            for face in detections
            if (box := clip_box(face.box, *image.shape[1::-1])) is not None
        ]
        faces: list[list[Face]] = [[] for _ in images]
        emotions = self._classify([crop for *_, crop in cut], baseline)
        for (number, face, box, crop), emotion in zip(cut, emotions, strict=True):
            found = Face(
                **vars(emotion) | {"abstained": emotion.abstained or face.in_doubt},
                box=box,
                landmarks=face.landmarks,
                detection_score=face.score,
                turned=face.turned,
                crop=crop,
            )
            faces[number].append(found)
        return faces

    def classify(self, crops: Sequence[ImageSource]) -> list[Emotion]:
        """Return one prediction per face that is already cropped, as the model's training faces are.

        Crops are whatever `images.read_image` takes, of any size. They are made grey where the training faces
        are, and reduced to their size where larger. Raises MediaError when one cannot be read.
        """
        return self._classify([self.fit_crop(read_image(crop)) for crop in crops])

    def compute_probabilities(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Return float64 (N, C) probabilities of crops in the model's framing (`Face.crop`), uint8."""
        if not len(crops):
            return np.empty((0, len(self.emotions)))
        parts = [list(crops[start : start + BATCH_SIZE]) for start in range(0, len(crops), BATCH_SIZE)]
        total = np.zeros((len(crops), len(self.emotions)))
        for preprocessing, run in self._networks:
            logits = np.concatenate([run(preprocess(part, preprocessing)) for part in parts])
            total += _compute_softmax(logits.astype(np.float64))
        if len(self._networks) == 1:
            return total
        return _compute_softmax(np.log(total) / self._vote_temperature)

    @cached_property
    def checkpoint(self) -> "Checkpoint":
        """The network in PyTorch, on the CPU, for explanations; loaded when first asked for.

        Of an int8 network it has the same weights, and does not round its activations. Raises ModelError
        where `why_unexplained` says why.
        """
        if self.why_unexplained:
            raise ModelError(f"variant: {self.variant!r}: {self.why_unexplained}")
        return self._load_torch(self._voters[0], "cpu")

    @property
    def why_unexplained(self) -> str:
        """Why no saliency map shows what this variant rests on; "" when one does."""
        if not find_spec("torch"):
            return "PyTorch, which computes saliency maps, is not installed here"
        if len(self._voters) == 1:
            return ""
        names = ", ".join(list_variants(self.config)[self.variant]["members"])
        return f"{self.variant} averages several networks, which has no saliency map; choose {names}"

    def _classify(self, crops: list[np.ndarray], baseline: "Baseline | None" = None) -> list[Emotion]:
        return [self.describe(row, baseline) for row in self.compute_probabilities(crops)]

    def describe(self, row: np.ndarray, baseline: "Baseline | None" = None) -> Emotion:
        """Return the prediction of float (C,) probabilities in the order of `emotions`.

        baseline: of the person whose face it is, if known.
        """
        row = row if baseline is None else baseline.apply(row)
        best = int(row.argmax())
        label, confidence = self.emotions[best], float(row[best])
        probabilities = dict(zip(self.emotions, row.tolist(), strict=True))
        return Emotion(probabilities, label, confidence, get_group(label), confidence < self.abstain_below)

    def fit_crop(self, crop: np.ndarray) -> np.ndarray:
        """Return a face that was cut out already, uint8 (H, W, 3), in the colours and size of `Face.crop`."""
        if self.framing.channels == 1:
            crop = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
        return resize_face(crop, self.framing.size) if min(crop.shape[:2]) > self.framing.size else crop

    def _open_onnx(self, network: Config) -> Callable[[np.ndarray], np.ndarray]:
        import onnxruntime

        provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(self.device, "")
        if provider not in onnxruntime.get_available_providers():
            raise ModelError(f"device: ONNX Runtime here cannot use {self.device!r}; use `cpu`")
        path = self.folder / network["file"]
        try:
            session = open_session(path, self.threads, provider)
            name, size = session.get_inputs()[0].name, network["preprocessing"]["image_size"]
            probe = session.run(None, {name: np.zeros((1, 3, size, size), np.float32)})[0]
        except Exception as error:  # ONNX Runtime's own exceptions share no public base
            reason = " ".join(str(error).split())[:160]
            raise ModelError(f"{path}: not a network that runs here: {reason}; export it again") from None
        if probe.shape != (1, len(self.emotions)):
            raise ModelError(
                f"{path}: expected {len(self.emotions)} outputs as in the config, found {probe.shape[-1]}; "
                "export it again"
            )
        return lambda pixels: session.run(None, {name: np.ascontiguousarray(pixels)})[0]

    def _open_torch(self, network: Config) -> Callable[[np.ndarray], np.ndarray]:
        import torch

        from fer_lib.training.predict import run_batches

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        try:
            model = self._load_torch(network, self.device).model
        except (RuntimeError, AssertionError) as error:
            raise ModelError(
                f"device: PyTorch here cannot use {self.device!r}: {str(error).splitlines()[0]}"
            ) from None
        return lambda pixels: run_batches(model, [torch.from_numpy(np.ascontiguousarray(pixels))])

    def _load_torch(self, network: Config, device: str) -> "Checkpoint":
        from fer_lib.models.build import load_checkpoint, load_exported

        if (self.folder / WEIGHTS_NAME).is_file():
            return load_checkpoint(self.folder, device)
        checkpoint = load_exported(self.folder / network["file"], network)
        checkpoint.model.to(device)
        return checkpoint


def _compute_softmax(logits: np.ndarray) -> np.ndarray:
    # Not `scipy.special.softmax`, which computes the same: importing SciPy doubles the time to start.
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def run_session(session: "onnxruntime.InferenceSession", images: np.ndarray, batch_size: int) -> np.ndarray:
    """Return float32 (N, C) logits of float32 (N, 3, S, S) images, a batch at a time."""
    starts = range(0, len(images), batch_size)
    return np.concatenate(
        [session.run(None, {INPUT: np.ascontiguousarray(images[i : i + batch_size])})[0] for i in starts]
    )
