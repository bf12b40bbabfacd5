"""Name the variants of compressed networks as a reader sees them."""

KINDS = {"float32": "FP32", "int8": "INT8", "int8_all": "INT8 throughout"}


def name_variant(variant: str) -> str:
    """Return `student, INT8` for `student.int8`, and `student, 70 % zeros` for `student.sparse_70`."""
    network, _, kind = variant.partition(".")
    zeros = kind.removeprefix("sparse_")
    return f"{network}, {KINDS.get(kind, f'{zeros} % zeros')}"
