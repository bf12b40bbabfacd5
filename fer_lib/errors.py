"""Errors a user can cause. Their text is one line: what was expected, what was found, where, what to do."""


class FerError(Exception):
    """Base of all errors that the command line prints as one line, without a trace."""


class ParamsError(FerError):
    """`params.yaml` holds an unknown key or a value out of range."""


class DataError(FerError):
    """Raw or packed data are missing, truncated or malformed."""


class ModelError(FerError):
    """A checkpoint or initial weights cannot be loaded."""


class MediaError(FerError):
    """An image or a video cannot be read, is too large, or has nothing to show."""
