"""Errors that a user can cause and mend. Everything else is our own mistake and stays an assertion or a traceback."""


class CaclError(Exception):
    """The run cannot go on. The message is one line, which says what is wrong, with which value, and the way out."""

    exit_code = 1
    """The exit code of the command that raises the error."""


class UsageError(CaclError):
    """The command line asks for something that does not fit together."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration does not hold together. The message lists every problem, one on a line."""


class DataError(CaclError):
    """A folder, a list or a video file is not what it should be."""


class CheckpointError(CaclError):
    """A checkpoint is missing, is damaged, or belongs to another model or configuration."""


def reason_of(error: Exception) -> str:
    """Returns what an error of the system or of FFmpeg says, without the numbers and names around it."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
