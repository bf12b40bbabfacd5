"""Recognise facial emotions, and rerun and audit the study behind it.

>>> from fer_lib import Recognizer
>>> faces = Recognizer()("photo.jpg")
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer_lib.inference.recognizer import Recognizer

__all__ = ["Recognizer"]

# Since 1.29 the official builds of ONNX Runtime report which models run where to Microsoft, from the moment
# they are imported. Faces are nobody else's business; who wants to report sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import what is asked for, so that `import fer_lib` alone stays fast."""
    if name != "Recognizer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fer_lib.inference.recognizer import Recognizer

    return Recognizer
