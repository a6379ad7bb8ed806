"""Ctrl-C as a wish to stop at the next batch, not as an exception anywhere."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupted", "StopRequest", "stop_on_sigint"]


class Interrupted(BaseException):
    """Leaves the training loop after Ctrl-C. Like KeyboardInterrupt it is no `Exception`, so nobody swallows it."""


class StopRequest:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.asked = False

    def check(self) -> None:
        """Leave the loop if Ctrl-C was pressed."""
        if self.asked:
            raise Interrupted


@contextmanager
def stop_on_sigint() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C into a request that the loop reads between batches; a second one leaves at once.

    Outside the main thread, where no signal arrives, nothing changes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(_signum: int, _frame: FrameType | None) -> None:
        request.check()
        request.asked = True

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield request
    except Interrupted:  # pressed again when the loop was over already
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)
