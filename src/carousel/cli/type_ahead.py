"""``carousel generate DIR --type-ahead``: complete what is typed, key by key on a terminal, else line by line."""

from __future__ import annotations

import argparse
import codecs
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from carousel.cli.console import say
from carousel.errors import ConfigError, explain

if TYPE_CHECKING:
    from carousel.tasks.lm import LanguageModel
    from carousel.tasks.lm.type_ahead import Completions, TypeAhead

__all__ = ["add_type_ahead_options", "type_ahead"]

SAMPLING = ("length", "stop", "temperature", "top_k", "top_p", "repetition_penalty", "seed")
ENTER, TAB, ESCAPE, END = "\n", "\t", "\x1b", "\x04"
DELETE = ("\x7f", "\x08")
HELP = "Tab takes the first completion; Ctrl-D or Ctrl-C ends."


def add_type_ahead_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of type-ahead to a verb."""
    group = parser.add_argument_group("type-ahead")
    what = "complete what is typed: keys from a terminal, else each line of stdin; with the time each keystroke took"
    group.add_argument("--type-ahead", "--type_ahead", dest="type_ahead", action="store_true", help=what)
    group.add_argument("--completions", metavar="N", type=int, default=5, help="completions to show [5]")


def type_ahead(model: LanguageModel, given: argparse.Namespace) -> int:
    """Complete until the input ends.

    Args:
        model: the language model.
        given: the arguments of `generate`.

    Returns:
        The exit code.
    """
    for name in SAMPLING:
        if getattr(given, name) is not None:
            raise ConfigError(explain(f"--type-ahead draws nothing: --{name} is not for it.", advice="leave it out"))
    if given.prompt == "-":
        raise ConfigError(explain("--type-ahead reads stdin: --prompt is a text.", got="--prompt -"))
    session = model.type_ahead(given.completions)
    prompt = (given.prompt or "").replace("\\n", "\n")
    times: list[float] = []
    terminal = sys.stdin is not None and sys.stdin.isatty()
    try:
        if terminal and sys.stdout.isatty() and importlib.util.find_spec("termios") is not None:
            with _terminal_keys() as keys:
                _on_terminal(session, prompt, keys, sys.stdout.write, times)
        else:
            _on_lines(session, prompt, times, as_json=getattr(given, "json", False))
    except KeyboardInterrupt:
        sys.stdout.write("\n")
        _say_times(times)
        return 130
    _say_times(times)
    return 0


def _on_lines(session: TypeAhead, prompt: str, times: list[float], *, as_json: bool) -> None:
    from carousel.tasks.lm.inputs import read_lines

    for line in read_lines("-"):
        session.clear()
        found = session.type(prompt)
        for letter in line:
            found = session.type(letter)
            times.append(found.milliseconds)
        if as_json:
            best = [{"text": one.text, "added": one.added, "probability": one.probability} for one in found.best]
            told = {"text": line, "prefix": found.prefix, "completions": best, "milliseconds": found.milliseconds}
            print(json.dumps(told, ensure_ascii=False))
        else:
            print(f"{_shown(found)}\t{found.milliseconds:.2f} ms\t{line}")
        sys.stdout.flush()


def _on_terminal(
    session: TypeAhead, prompt: str, keys: Iterator[str], write: Callable[[str], object], times: list[float]
) -> None:
    """Type until the keys end; the line is drawn anew at each."""
    say(HELP)
    found = session.type(prompt)
    _draw(session, found, write)
    for key in keys:
        if key in DELETE:
            found = session.back()
        elif key == TAB:
            if not found.best:
                continue
            blank = " " if session.unit == "word" else ""
            found = session.type(found.best[0].added + blank)
        elif key == ENTER or key.isprintable():
            if key == ENTER:
                write(f"\r\x1b[K{_line(session)}\r\n")
            found = session.type(key)
        else:
            continue
        times.append(found.milliseconds)
        _draw(session, found, write)
    write(f"\r\x1b[K{_line(session)}\r\n")


def _draw(session: TypeAhead, found: Completions, write: Callable[[str], object]) -> None:
    from rich.cells import cell_len, set_cell_size

    width = max(20, os.get_terminal_size().columns - 1) if sys.stdout.isatty() else 79
    shown = f"  | {_shown(found)}  {found.milliseconds:.1f} ms"
    shown = set_cell_size(shown, min(cell_len(shown), 2 * width // 3))
    line = _line(session)
    while cell_len(line) > width - cell_len(shown):
        line = line[1:]
    write(f"\r\x1b[K{line}\x1b[2m{shown}\x1b[0m\x1b[{cell_len(shown)}D")
    sys.stdout.flush()


def _line(session: TypeAhead) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in session.text.rsplit("\n", 1)[-1])


def _shown(found: Completions) -> str:
    return "  ".join(f"{one.text or '(end)'} {one.probability:.3f}" for one in found.best) or "(nothing known)"


def _say_times(times: list[float]) -> None:
    if times:
        ordered = sorted(times)
        median, late = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
        say(f"{len(times)} keystrokes: median {median:.2f} ms, 95 % within {late:.2f} ms")


@contextmanager
def _terminal_keys() -> Iterator[Iterator[str]]:
    """The keys of the terminal one by one, as they are pressed; the terminal is as before when it ends."""
    import termios
    import tty

    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    try:
        tty.setcbreak(number)
        yield _decoded(number)
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def _decoded(number: int) -> Iterator[str]:
    """Characters from a terminal until Ctrl-D; the sequences that arrows and the like send are left out."""
    import select

    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while data := os.read(number, 1):
        for key in decoder.decode(data):
            if key == END:
                return
            if key == ESCAPE:
                if select.select([number], [], [], 0.01)[0] and os.read(number, 1) in (b"[", b"O"):
                    while not 0x40 <= os.read(number, 1)[0] <= 0x7E:
                        pass
                continue
            yield ENTER if key == "\r" else key
