"""Compute saliency maps for the pages; PyTorch, which they need, is loaded while the visitor reads."""

import logging
import threading
from weakref import WeakSet

import numpy as np
import streamlit as st

from app.common import identify
from fer_lib.inference.recognizer import Recognizer

LOG = logging.getLogger("fer_lib.app")

MAX_MAPS = 64
"""Kept for each visitor; one takes some 100 kB."""

_warm: WeakSet[Recognizer] = WeakSet()
"""Those whose network is built, or being built; one that is loaded anew has none yet."""


@st.cache_data(show_spinner=False, max_entries=MAX_MAPS, scope="session", hash_funcs={Recognizer: identify})
def explain(recognizer: Recognizer, crop: np.ndarray, emotion: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the saliency map, float32 (S, S), and the face under it, uint8 (S, S, 3).

    crop: `Face.crop`. Raises ModelError when the model's network is none that can be explained.
    """
    from fer_lib.analysis.explain import explain_face, overlay_saliency  # torch: only who asks waits for it

    saliency = explain_face(recognizer.checkpoint, crop, emotion)
    return saliency, overlay_saliency(crop, saliency)


def warm_up(recognizer: Recognizer) -> None:
    """Import PyTorch and build the network in the background: the first saliency map is soon there."""
    if recognizer.why_unexplained or recognizer in _warm:
        return
    _warm.add(recognizer)
    threading.Thread(target=_build_network, args=(recognizer,), name="warm up", daemon=True).start()


def _build_network(recognizer: Recognizer) -> None:
    try:
        import fer_lib.analysis.explain  # noqa: F401

        recognizer.checkpoint  # noqa: B018
    except Exception:  # whoever asks for a map is told why there is none
        LOG.info("no saliency map can be prepared", exc_info=True)
