"""Ctrl-C while something is written."""

import itertools
import os
import signal
from contextlib import nullcontext, suppress

import pytest

from carousel.cli.interrupts import until_interrupted

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is another thing there")


def parts(swallow):
    """An endless writer at whose third part Ctrl-C is pressed, in code that loses it or not."""
    for number in itertools.count():
        if number == 3:
            with suppress(KeyboardInterrupt) if swallow else nullcontext():
                signal.raise_signal(signal.SIGINT)
        yield number


@pytest.mark.parametrize("swallow", [False, True])
def test_an_interrupt_that_is_lost_on_its_way_still_ends_the_writing(swallow):
    before, seen = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt):
        seen.extend(until_interrupted(parts(swallow)))
    assert seen == ([0, 1, 2, 3] if swallow else [0, 1, 2])
    assert signal.getsignal(signal.SIGINT) is before


def test_without_it_everything_comes():
    assert list(until_interrupted(range(4))) == [0, 1, 2, 3]
