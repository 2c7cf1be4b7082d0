"""Output that never ends a training: what cannot be printed is left out, and the training goes on.

A terminal may not know a character, a reader may go away (``supernet run | head -1``), the disk of
a log file may be full, and the output may have been closed from the start.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO, cast


class Output:
    """A text stream that passes what is written on to ``file``, as long as that works.

    A character that the encoding of ``file`` does not have is written as a question mark. After the
    first write that fails for another reason, nothing more is written, and standard error says so.
    Everything else is as in ``file``.
    """

    def __init__(self, file: TextIO | None):
        self.file, self.gone = file, file is None or getattr(file, "closed", False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, text: str) -> int:
        self._attempt(lambda file: written(file, text))
        return len(text)

    def flush(self) -> None:
        self._attempt(lambda file: file.flush())

    def isatty(self) -> bool:
        return self.file is not None and not self.gone and self.file.isatty()

    def _attempt(self, act: Callable[[TextIO], Any]) -> None:
        """Does ``act`` with the file, unless nothing can be written to it any more."""
        if self.gone or self.file is None:
            return
        try:
            act(self.file)
        except (OSError, ValueError) as error:  # ValueError: the file was closed
            self.gone = True
            with contextlib.suppress(OSError, ValueError, AttributeError):
                # Python writes what is still in the buffer when it ends, and would fail again.
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.file.fileno())
                os.close(nowhere)
            with contextlib.suppress(OSError, ValueError, AttributeError):
                why = getattr(error, "strerror", None) or error
                print(f"supernet: the output ends here ({why}); the work goes on", file=sys.stderr)


def written(file: TextIO, text: str) -> None:
    """Writes ``text``, with a question mark for each character that the encoding does not have."""
    try:
        file.write(text)
    except UnicodeEncodeError:
        file.write(text.encode(file.encoding, "replace").decode(file.encoding))


@contextlib.contextmanager
def steady_output() -> Iterator[None]:
    """Inside the block, everything that is printed to standard output passes an :class:`Output`."""
    output = sys.stdout if isinstance(sys.stdout, Output) else Output(sys.stdout)
    with contextlib.redirect_stdout(cast(TextIO, output)):
        try:
            yield
        finally:
            output.flush()
