"""From a picture to faces with emotions; the app, the command line and the notebooks all call this.

With ONNX Runtime, the default, nothing here needs torch, and a model is ready in half a second.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fer_lib.data.detector import SMALLEST_FACE, Detection, Detector
from fer_lib.data.framing import FER2013_FRAMING, Framing, cut_face
from fer_lib.data.images import ImageSource, read_image
from fer_lib.errors import ModelError
from fer_lib.labels import GROUP_OF
from fer_lib.models.checkpoints import (
    DEFAULT_MODEL,
    FLOAT_VARIANT,
    find_checkpoint,
    list_variants,
    read_config,
)
from fer_lib.models.preprocessing import Preprocessing, preprocess, resize_face

BACKENDS = ("onnx", "torch")

BATCH_SIZE = 64
"""Crops that go through the network at once: a folder of any size needs no more memory than these."""


@dataclass(frozen=True)
class Emotion:
    """What the network says of one crop.

    probabilities: by emotion, calibrated, summing to 1.   label: the most likely emotion.   confidence: its
    probability.   group: positive, negative or neutral, that of the label.   abstained: the confidence is
    under the model's threshold, so the label should not be relied on.
    """

    probabilities: dict[str, float]
    label: str
    confidence: float
    group: str
    abstained: bool


@dataclass(frozen=True)
class Face(Emotion):
    """One face in a picture, and what the network says of it.

    box: left, top, width, height in whole pixels, inside the picture.   landmarks: float32 (5, 2), x and y in
    pixels, in the order of `detector.LANDMARKS`.   detection_score: 0..1.   crop: what the network was shown,
    uint8 (S, S) or (S, S, 3).
    """

    box: tuple[int, int, int, int]
    landmarks: np.ndarray = field(repr=False, compare=False)
    detection_score: float
    crop: np.ndarray = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the crop."""
        return {
            "box": list(self.box),
            "landmarks": [[round(float(value), 1) for value in point] for point in self.landmarks],
            "detection_score": round(self.detection_score, 4),
            "label": self.label,
            "confidence": round(self.confidence, 4),
            "group": self.group,
            "abstained": self.abstained,
            "probabilities": {name: round(value, 4) for name, value in self.probabilities.items()},
        }


class Recognizer:
    """Finds faces and names their emotions. One object serves any number of threads."""

    def __init__(
        self,
        folder: Path,
        backend: str | None = None,
        device: str = "cpu",
        threads: int | None = None,
        abstain_below: float | None = None,
        variant: str = FLOAT_VARIANT,
    ):
        """Use `Recognizer.load`, which takes names too; its arguments are the same."""
        self.folder = folder
        self.config = read_config(folder)
        self.emotions: tuple[str, ...] = tuple(self.config["emotions"])
        variants = list_variants(self.config)
        if variant not in variants:
            known = ", ".join(variants)
            raise ModelError(f"variant: expected one of {known} of {folder.name}, found {variant!r}")
        self.variant, self._file = variant, variants[variant]["file"]
        self.preprocessing = Preprocessing.from_dict(variants[variant]["preprocessing"])
        framing = self.config.get("framing")
        self.framing = Framing.from_dict(framing) if framing else FER2013_FRAMING
        self.abstain_below = self.config.get("abstain_below", 0.0) if abstain_below is None else abstain_below
        self.device, self.threads = device, threads
        if threads is not None:
            cv2.setNumThreads(threads)
        has_onnx = (folder / self._file).is_file()
        if variant != FLOAT_VARIANT and backend not in (None, "onnx"):
            raise ModelError(f"backend: {variant!r} runs in ONNX Runtime alone; leave out {backend!r}")
        self.backend = backend or ("onnx" if has_onnx else "torch")
        if self.backend not in BACKENDS:
            raise ModelError(f"backend: expected one of {', '.join(BACKENDS)}, found {backend!r}")
        if self.backend == "onnx" and not has_onnx:
            raise ModelError(f"{folder}: expected {self._file}, found none; use the backend `torch`")
        self.detector = Detector()
        self._run = self._open_onnx() if self.backend == "onnx" else self._open_torch()

    @classmethod
    def load(
        cls,
        model: str | Path = DEFAULT_MODEL,
        *,
        backend: str | None = None,
        device: str = "cpu",
        threads: int | None = None,
        abstain_below: float | None = None,
        variant: str = FLOAT_VARIANT,
    ) -> "Recognizer":
        """Return a recognizer ready for use.

        model: a release's name, `<dataset>/<name>`, or the folder of a checkpoint.   backend: `onnx` or
        `torch`; None: ONNX Runtime where the model was exported, else PyTorch.   device: `cpu` or `cuda`.
        threads: of the network, and, for the whole process, of OpenCV; None: as many as there are cores.
        abstain_below: a confidence, in place of the model's own threshold.   variant: `float`, or one of the
        smaller and faster networks beside it that `checkpoints.list_variants` lists: `int8`, `tiny`.
        Raises ModelError, in one line, when the model is missing, damaged or cannot run so.
        """
        return cls(find_checkpoint(model), backend, device, threads, abstain_below, variant)

    def __call__(
        self, image: ImageSource, *, min_face: float = SMALLEST_FACE, n_refined: int | None = None
    ) -> list[Face]:
        """Return the faces of a picture, the largest first; none is an empty list.

        image: whatever `images.read_image` takes; arrays are RGB.   min_face, n_refined: as in
        `Detector.detect`; both trade small and tilted faces for speed. All faces are classified in one pass.
        Raises MediaError when the picture cannot be read.
        """
        pixels = read_image(image)
        return self.recognize(pixels, self.detector.detect(pixels, min_face, n_refined))

    def recognize(self, image: np.ndarray, detections: Sequence[Detection]) -> list[Face]:
        """Return the faces that were detected in a uint8 (H, W, 3) RGB picture, classified in one pass.

        In the order of `detections`; what lies wholly outside the picture is left out.
        """
        height, width = image.shape[:2]
        found = [
            (face, box) for face in detections if (box := _clip_box(face.box, width, height)) is not None
        ]
        crops = [cut_face(image, face.landmarks, self.framing) for face, _ in found]
        return [
            Face(**vars(emotion), box=box, landmarks=face.landmarks, detection_score=face.score, crop=crop)
            for (face, box), emotion, crop in zip(found, self._classify(crops), crops, strict=True)
        ]

    def classify(self, crops: Sequence[ImageSource]) -> list[Emotion]:
        """Return one result per face that is already cropped, as the model's training faces are.

        crops: whatever `images.read_image` takes, of any sizes. They are made grey where the training faces
        are, and reduced to their size where larger. Raises MediaError when one cannot be read.
        """
        return self._classify([self._fit_crop(read_image(crop)) for crop in crops])

    def compute_probabilities(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Return float64 (N, C) probabilities of crops in the model's framing (`Face.crop`), uint8."""
        if not len(crops):
            return np.empty((0, len(self.emotions)))
        parts = [crops[start : start + BATCH_SIZE] for start in range(0, len(crops), BATCH_SIZE)]
        logits = np.concatenate([self._run(preprocess(list(part), self.preprocessing)) for part in parts])
        logits = logits.astype(np.float64)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    @cached_property
    def checkpoint(self):  # -> fer_lib.models.build.Checkpoint, which needs torch
        """The network in PyTorch, on the CPU, for explanations; loaded when first asked for.

        Raises ModelError for a variant that is not as it was trained.
        """
        if self.variant != FLOAT_VARIANT:
            raise ModelError(
                f"variant: expected {FLOAT_VARIANT!r}, which alone can be explained, found {self.variant!r}"
            )
        from fer_lib.models.build import load_checkpoint

        return load_checkpoint(self.folder)

    def _classify(self, crops: list[np.ndarray]) -> list[Emotion]:
        return [self.describe(row) for row in self.compute_probabilities(crops)]

    def describe(self, row: np.ndarray) -> Emotion:
        """Return what float (C,) probabilities, in the order of `emotions`, say."""
        best = int(row.argmax())
        label, confidence = self.emotions[best], float(row[best])
        probabilities = dict(zip(self.emotions, row.tolist(), strict=True))
        return Emotion(probabilities, label, confidence, GROUP_OF[label], confidence < self.abstain_below)

    def _fit_crop(self, crop: np.ndarray) -> np.ndarray:
        if self.framing.channels == 1:
            crop = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
        return resize_face(crop, self.framing.size) if min(crop.shape[:2]) > self.framing.size else crop

    def _open_onnx(self):
        import onnxruntime

        from fer_lib.inference.runtime import open_session

        provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(self.device)
        if provider not in onnxruntime.get_available_providers():
            raise ModelError(f"device: ONNX Runtime here cannot use {self.device!r}; use `cpu`")
        path = self.folder / self._file
        try:
            session = open_session(path, self.threads, provider)
            name, size = session.get_inputs()[0].name, self.preprocessing.image_size
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

    def _open_torch(self):
        import torch

        from fer_lib.models.build import load_checkpoint

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        try:
            model = load_checkpoint(self.folder, self.device).model
        except (RuntimeError, AssertionError) as error:
            raise ModelError(
                f"device: PyTorch here cannot use {self.device!r}: {str(error).splitlines()[0]}"
            ) from None

        @torch.inference_mode()
        def run(pixels: np.ndarray) -> np.ndarray:
            images = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device)
            return model(images.to(memory_format=torch.channels_last)).float().cpu().numpy()

        return run


def _clip_box(box: tuple[float, ...], width: int, height: int) -> tuple[int, int, int, int] | None:
    """Return the box in whole pixels inside the picture; None when nothing of it is."""
    left, top = max(0, round(box[0])), max(0, round(box[1]))
    right, bottom = min(width, round(box[0] + box[2])), min(height, round(box[1] + box[3]))
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None
