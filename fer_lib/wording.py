"""Name networks, their variants and groups as a reader would, in place of the keys of the tables."""

from collections.abc import Sequence

PRECISIONS = {"float32": "FP32", "int8": "INT8", "int8_all": "INT8 throughout"}
"""Of variants; in `int8` the layers that cost too much accuracy stay in float."""


def spell_network(name: str) -> str:
    """Return `student (FP32)` for `student.float32`, `student (70 % zeros)` for `student.sparse_70`.

    A name without a variant stays as it is.
    """
    network, _, variant = name.partition(".")
    zeros = variant.removeprefix("sparse_")
    return f"{network} ({PRECISIONS.get(variant, f'{zeros} % zeros')})" if variant else network


def spell_group(name: str) -> str:
    """Return a factor, or a group of it, in words: `skin tone 3`, `mask: yes`."""
    words = name.replace("_", " ")
    for truth, word in {" False": ": no", " True": ": yes"}.items():
        words = words.replace(truth, word)
    return words


def join_words(words: Sequence[str]) -> str:
    """Return `a`, `a and b`, or `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
