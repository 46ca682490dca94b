"""Hold back what a library's C++ parts print past Python."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

STDOUT, STDERR = 1, 2


@contextlib.contextmanager
def redirect_fd(descriptor: int) -> Iterator[None]:
    """Hold back what is written to a file descriptor; shown after all where an exception passes."""
    stream = {STDOUT: sys.stdout, STDERR: sys.stderr}[descriptor]
    stream.flush()
    real = os.dup(descriptor)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), descriptor)
        try:
            yield
        except BaseException:
            held.seek(0)
            with contextlib.suppress(OSError):  # what cannot be shown is no reason to hide the exception
                os.write(real, held.read())
            raise
        finally:
            stream.flush()
            os.dup2(real, descriptor)
            os.close(real)
