"""SIGTERM and SIGINT end a training where its state is saved, in all its processes at once."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from src.engine.distributed import DistributedContext, is_lost_peer


class Interrupted(SystemExit):
    """SIGTERM or SIGINT arrived; the state was saved. Exit status 143 or 130."""


class Interruption:
    """Notes a signal, for the training to end at its next good place.

    Attributes:
        signal: that came to this process, or of which it was told; None: none.
    """

    def __init__(self, context: DistributedContext) -> None:
        self.signal: int | None = None
        self._context = context

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Signals are noted within.

        Raises:
            Interrupted: an exchange broke after a signal, since a process that it reached first has gone.
        """
        previous = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        except RuntimeError as error:
            if self.signal is None or not is_lost_peer(error):
                raise
            raise Interrupted(128 + self.signal) from error
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def is_noted(self) -> bool:
        """Whether this process knows of a signal."""
        return self.signal is not None

    def ended(self) -> Interrupted:
        """The error to raise. All processes call it: none leaves while another exchanges or saves."""
        self.signal = self.signal or signal.SIGTERM
        self._context.barrier()
        return Interrupted(128 + self.signal)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
