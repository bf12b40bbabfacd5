"""Bring a model from the Hugging Face Hub."""

from pathlib import Path

from fer_lib.errors import ModelError
from fer_lib.models.checkpoints import CONFIG_NAME

WANTED = (CONFIG_NAME, "*.onnx")
"""The files of a release that run it. Others in a repository may be code, and are left there."""


def download_model(repository: str, revision: str | None = None) -> Path:
    """Return the folder of a model, in the cache of the Hub's client, downloaded unless it is there already.

    Raises ModelError, in one line, when it cannot be had.
    """
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError:
        raise ModelError(
            f"{repository}: expected what the extra `hub` installs, found none; install fer-lib with it"
        ) from None
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(WANTED)))
    except Exception as error:  # those of the connection share no base with the client's own
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{repository}: expected a model on the Hugging Face Hub or in its cache, found none ({reason}); "
            "check the name and the connection"
        ) from None
