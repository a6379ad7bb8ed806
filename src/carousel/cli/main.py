"""Where the command starts: find the verb, run it, and turn every expected failure into one clear message.

Only the standard library is imported here; a verb's module, with all it needs, is imported when that verb is called.
So ``carousel --help`` answers at once.

Exit codes: 0 done; 2 the user can mend it (a :class:`~carousel.errors.CarouselError` or the operating system's refusal);
130 interrupted by Ctrl-C; 141 the reader of our output went away; 1 a defect of ours, with its traceback.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from carousel import __version__
from carousel.errors import CarouselError, ConfigError, unknown_name

__all__ = ["VERBS", "Verb", "main"]

DEBUG_VARIABLE = "CAROUSEL_DEBUG"


@dataclass(frozen=True)
class Verb:
    """One verb of the command.

    Args:
        module: where its ``run(arguments)`` lives; imported when the verb is called.
        usage: what follows the verb.
        summary: one line for ``carousel --help``.
    """

    module: str
    usage: str
    summary: str


VERBS = {
    "fit": Verb("carousel.cli.fit", "TASK --train FILE --out DIR", "train a model and keep it in a run directory"),
    "evaluate": Verb("carousel.cli.evaluate", "DIR --data FILE", "measure a trained model on labelled data"),
    "compare": Verb("carousel.cli.compare", "RUN...", "put runs side by side: scores, time, size, settings that differ"),
    "crossvalidate": Verb(
        "carousel.cli.crossvalidate", "TASK --train FILE --out DIR", "train on all parts of the data but one, in turn"
    ),
    "predict": Verb("carousel.cli.predict", "DIR [FILE|-]", "one prediction for every record of a file or of stdin"),
    "encode": Verb("carousel.cli.encode", "DIR [FILE|-]", "one vector for every record, for search, clustering, plots"),
    "generate": Verb("carousel.cli.generate", "DIR --prompt TEXT", "write on from a prompt, with a language model"),
    "pinyin": Verb("carousel.cli.pinyin", "DIR [TEXT]", "pinyin to Chinese characters, with a language model"),
    "score": Verb("carousel.cli.score", "DIR [FILE|-]", "how likely sentences are; next words, blanks, validity"),
    "vectors": Verb("carousel.cli.vectors", "DIR", "the word vectors of a language model: write, compare, measure"),
    "init": Verb("carousel.cli.init", "TASK [FILE]", "write a configuration to start from, with every option explained"),
    "check": Verb("carousel.cli.check", "FILE", "what a data file holds, and what is wrong with it"),
    "tasks": Verb("carousel.cli.tasks", "", "list the tasks, and the files they read"),
    "cells": Verb("carousel.cli.cells", "[NAME]", "list the cells, or print the equations of one"),
    "bench": Verb("carousel.cli.bench", "", "how fast cells run here, beside torch, ONNX Runtime and JAX"),
    "completion": Verb("carousel.cli.completion", "SHELL", "a script that completes this command in bash, zsh or fish"),
    "info": Verb("carousel.cli.info", "", "versions, processor, threads, and which engines work here"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: what follows the word ``carousel``; None takes it from ``sys.argv``.

    Returns:
        The exit code.
    """
    try:
        code = _dispatch(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        sys.stderr.write("\ncarousel: interrupted\n")
        return 130
    except BrokenPipeError:
        _discard(sys.stdout)
        return 141
    except (CarouselError, OSError) as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        if getattr(error, "errno", None) == errno.ENOSPC:
            _discard(sys.stdout)  # what is still buffered could not be written at exit either
        sys.stderr.write(f"carousel: error: {_one_message(error)}\n")
        return 2
    return code


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else 2
    verb, rest = arguments[0], arguments[1:]
    if verb == "--version":
        print(f"carousel {__version__}")
        return 0
    if verb not in VERBS:
        if verb.startswith("-"):
            raise ConfigError(f"options follow the verb; got {verb!r} first.\n  try:      carousel --help")
        raise ConfigError(unknown_name("verb", verb, VERBS))
    run = importlib.import_module(VERBS[verb].module).run
    return int(run(rest))


def _help() -> str:
    width = max(len(f"{name} {verb.usage}") for name, verb in VERBS.items()) + 2
    lines = [
        "usage: carousel VERB ...      (carousel VERB --help explains one verb)",
        "",
        "Recurrent networks from their equations: train, measure and use them on your own text.",
        "",
        *(f"  {f'{name} {verb.usage}'.ljust(width)}{verb.summary}" for name, verb in VERBS.items()),
        "",
        "options:",
        "  -h, --help  this text",
        "  --version   the version",
        "",
        f"Set {DEBUG_VARIABLE}=1 to see the traceback of an error.",
    ]
    return "\n".join(lines)


def _one_message(error: Exception) -> str:
    if isinstance(error, CarouselError) or not isinstance(error, OSError):
        return str(error)
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename is not None else reason


def _discard(stream: TextIO) -> None:
    """Point `stream` at nothing, so that the interpreter's last flush at exit does not fail again."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        return  # not a real file (a test's buffer): there is nothing left to flush
