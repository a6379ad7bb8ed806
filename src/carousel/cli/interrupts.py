"""Ctrl-C, also where it comes while a library is at work that loses it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TypeVar

__all__ = ["until_interrupted"]

Part = TypeVar("Part")


def until_interrupted(parts: Iterable[Part]) -> Iterator[Part]:
    """The parts, one after another, until Ctrl-C.

    Python raises it wherever the program is, and compiled code that asks and forgets (an attribute that may be missing, a
    comparison) can drop it without a word; then an endless writer goes on. So it is noted, too, and looked at between parts.

    Args:
        parts: what is produced.

    Raises:
        KeyboardInterrupt: at once, or at the latest after the part at work.
    """
    if threading.current_thread() is not threading.main_thread():  # no signal arrives there
        yield from parts
        return
    pressed = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, note)
    try:
        for part in parts:
            yield part
            if pressed:
                raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)
