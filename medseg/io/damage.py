"""The one place where what readers raise on damaged files becomes medseg's errors."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medseg.errors import MedsegError, first_line
from medseg.system.memory import is_out_of_memory

log = logging.getLogger(__name__)


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Make a MedsegError of whatever is raised while a file is read, the library's own text at its end.

    Libraries raise nearly anything on files that are truncated, damaged or something else, so no list of their
    exceptions is complete.

    Args:
        path: the file.
        kind: what it should be, such as "NIfTI file".
    """
    try:
        yield
    except MedsegError:
        raise
    except OSError as error:
        if error.errno is None:
            raise damaged(path, kind, error) from error
        raise MedsegError(f"{path} cannot be read: {error.strerror}.") from error
    except Exception as error:
        if is_out_of_memory(error):
            raise MedsegError(f"{path}: there is not enough memory to read this {kind}.") from error
        log.debug("%s", path, exc_info=True)
        raise damaged(path, kind, error) from error


def damaged(path: Path, kind: str, error: Exception) -> MedsegError:
    """Return the error that says that a file is none of its kind, and why."""
    cause = first_line(error)
    if isinstance(error, LookupError | AttributeError | TypeError):  # whose texts alone say little
        cause = f"{type(error).__name__}: {cause}"
    return MedsegError(f"{path}: no readable {kind}; damaged, truncated or something else? {cause}")
