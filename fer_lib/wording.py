"""Name networks and groups as a page's reader would, in place of the keys of the tables."""

from collections.abc import Sequence

PRECISIONS = {"float32": "FP32", "int8": "INT8"}


def spell_network(name: str) -> str:
    """Return `student (FP32)` for `student.float32`; a name without a precision as it is."""
    recipe, _, precision = name.partition(".")
    return f"{recipe} ({PRECISIONS.get(precision, precision)})" if precision else recipe


def spell_group(name: str) -> str:
    """Return a factor, or a group of it, in words: `skin tone 3`, `mask: yes`."""
    words = name.replace("_", " ")
    for truth, word in {" False": ": no", " True": ": yes"}.items():
        words = words.replace(truth, word)
    return words


def join_words(words: Sequence[str]) -> str:
    """Return `a`, `a and b`, or `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
