"""Name networks, their variants and groups as a reader would, in place of the keys of the tables."""

from collections.abc import Sequence

PRECISIONS = {"float32": "FP32", "int8": "INT8", "int8_all": "INT8 throughout"}
"""Of variants; in `int8` the layers that cost too much accuracy stay in float."""


SETTINGS = {
    "tf_efficientnet_b0": "EfficientNet-B0",
    "tf_efficientnet_lite0": "EfficientNet-Lite0",
    "resnet18": "ResNet-18",
    "face_resnet": "face ResNet",
    "face_resnet_tiny": "face ResNet, tiny",
    "package": "ImageNet (package)",
    "cross_entropy": "cross-entropy",
}
"""Of trainings: architectures, sources of the initial weights, losses."""


def spell_network(name: str) -> str:
    """Return `student (FP32)` for `student.float32`, `student (70% zeros)` for `student.sparse_70`.

    A name without a variant stays as it is.
    """
    network, _, variant = name.partition(".")
    zeros = variant.removeprefix("sparse_")
    return f"{network} ({PRECISIONS.get(variant, f'{zeros}% zeros')})" if variant else network


def spell_setting(value: object) -> str:
    """Return a setting of a training as a reader sees it: `EfficientNet-B0` for `tf_efficientnet_b0`."""
    return SETTINGS.get(str(value), str(value).replace("_", " "))


def spell_group(name: str) -> str:
    """Return a factor, or a group of it, in words: `skin tone 3`, `mask: yes`."""
    words = name.replace("_", " ")
    for truth, word in {" False": ": no", " True": ": yes"}.items():
        words = words.replace(truth, word)
    return words


def spell_difference(value: float, low: float, high: float) -> tuple[str, str]:
    """Return a difference of shares and its 95% interval in points: `0.6 points lower`, `[-0.6, 1.8]`.

    The interval has the sign of the words: where the difference is lower, it says how much lower.
    """
    size = f"{abs(100 * value):.1f}"
    is_lower = value < 0 and size != "0.0"
    ends = (-high, -low) if is_lower else (low, high)
    change = f"{size} points {'lower' if is_lower else 'higher'}"
    return change, "[{:.1f}, {:.1f}]".format(*(100 * end for end in ends))


def join_words(words: Sequence[str]) -> str:
    """Return `a`, `a and b`, or `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
