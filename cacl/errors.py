"""Errors that a user can cause and mend. Everything else is our own mistake and stays an assertion or a traceback."""


class CaclError(Exception):
    """The run cannot go on. The message is one line: what is wrong, with which value, and the way out."""

    exit_code = 1


class UsageError(CaclError):
    """The command line asks for something that does not fit together."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration does not hold together; the message lists every problem, one a line."""


class DataError(CaclError):
    """A folder, a list or a video file is not what it should be."""


class CheckpointError(CaclError):
    """A checkpoint is missing, damaged, or belongs to another model or configuration."""


def reason_of(error: Exception) -> str:
    """What an error of the system or of FFmpeg says, without the numbers and names around it."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
