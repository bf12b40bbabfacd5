"""Ask one package for the emotion of every face; run by that package's own Python, not by hand.

    <interpreter> benchmarks/peers/adapters.py PEER FACES.npy RESULT.json

Every `load_*` returns a function from a face, uint8 (48, 48) grey, to a score per emotion under the
package's own names. It takes the package's own preprocessing and its own network, and leaves out its face
detector: the faces are cut out already. Only the standard library and NumPy may be imported up here.
"""

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

N_WARM_UP = 20
"""Calls before the clock runs: the first ones build caches and start threads."""

Classify = Callable[[np.ndarray], Mapping[str, float]]


def load_ours() -> Classify:
    from fer_lib.inference.recognizer import Recognizer

    recognizer = Recognizer(threads=int(os.environ["OMP_NUM_THREADS"]))
    return lambda face: recognizer.classify([face])[0].probabilities


def load_fer(*, use_tflite: bool = True) -> Classify:
    import cv2
    from fer.fer import FER

    detector = FER(use_tflite=use_tflite)
    names = FER._get_labels()

    def classify(face: np.ndarray) -> dict[str, float]:
        # As in FER.detect_emotions, whose result would be rounded to two decimals.
        pixels = (cv2.resize(face, (64, 64)).astype("float32") / 255.0 - 0.5) * 2.0
        return dict(zip(names.values(), np.array(detector._classify_emotions(pixels[None])[0]), strict=True))

    return classify


def load_fer_keras() -> Classify:
    return load_fer(use_tflite=False)


def load_facex() -> Classify:
    import facex.core

    folder = Path(facex.core.__file__).parent
    return facex.core.EmotionClassifier(str(folder / "assets" / "model_optimized.tflite")).detect_emotion


def load_what_the_face() -> Classify:
    from PIL import Image
    from what_the_face_classification.inference import Image_classifier

    classifier = Image_classifier()
    classifier.face_crop = lambda image: (image, True)

    def classify(face: np.ndarray) -> dict[str, float]:
        label, probability = classifier.predict(Image.fromarray(face))
        return {label: float(probability)}

    return classify


def load_facial_emotion() -> Classify:
    import torch
    from facial_emotion_recognition import EmotionRecognition

    # Its weights were saved on a GPU, and it does not say that they may be loaded without one.
    torch.load = functools.partial(torch.load, map_location="cpu")
    recognition = EmotionRecognition(device="cpu")
    return lambda face: {recognition._predict(face): 1.0}


def load_rmn() -> Classify:
    from rmn import RMN

    network = RMN(face_detector=False)

    def classify(face: np.ndarray) -> dict[str, float]:
        _, _, scores = network.detect_emotion_for_single_face_image(face)
        return {name: score for item in scores for name, score in item.items()}

    return classify


def load_emotiefflib() -> Classify:
    from emotiefflib.facial_analysis import EmotiEffLibRecognizer

    recognizer = EmotiEffLibRecognizer(engine="onnx")

    def classify(face: np.ndarray) -> dict[str, float]:
        _, scores = recognizer.predict_emotions(np.dstack([face] * 3), logits=False)
        return dict(zip(recognizer.idx_to_emotion_class.values(), scores[0], strict=True))

    return classify


def load_deepface() -> Classify:
    from deepface import DeepFace

    DeepFace.build_model("Emotion", "facial_attribute")
    options = {"actions": ["emotion"], "detector_backend": "skip", "silent": True}
    return lambda face: DeepFace.analyze(np.dstack([face] * 3), **options)[0]["emotion"]


def main() -> None:
    """Write the package's scores and its milliseconds of every face."""
    peer, faces_file, result_file = sys.argv[1:]
    faces = np.load(faces_file)
    try:
        classify = globals()[f"load_{peer}"]()
    except Exception as error:
        sys.exit(f"cannot load: {type(error).__name__}: {' '.join(str(error).split())}")
    for face in faces[:N_WARM_UP]:
        classify(face)
    scores, milliseconds = [], []
    for face in faces:
        begun = time.perf_counter()
        found = classify(face)
        milliseconds.append(1000 * (time.perf_counter() - begun))
        scores.append({name: float(score) for name, score in found.items()})
    Path(result_file).write_text(json.dumps({"scores": scores, "milliseconds": milliseconds}))


if __name__ == "__main__":
    main()
