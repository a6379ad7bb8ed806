"""``carousel generate DIR``: write on, text appearing as it is produced."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from carousel.cli.console import say
from carousel.cli.interrupts import until_interrupted
from carousel.cli.parsing import VerbParser, add_model_options
from carousel.cli.poems import add_poem_options, is_poet, refuse_poem_options, write_poems
from carousel.cli.type_ahead import add_type_ahead_options, type_ahead
from carousel.errors import ConfigError, explain

if TYPE_CHECKING:
    from carousel.tasks.lm import LanguageModel

__all__ = ["notes_said", "open_language_model", "parser", "run"]

LENGTH = 200


def run(arguments: Sequence[str]) -> int:
    """Run the verb on what follows it."""
    given = parser().parse(arguments)
    with notes_said():
        model = open_language_model(given)
        if is_poet(model):
            return write_poems(model, given)
        if given.type_ahead:
            refuse_poem_options(argparse.Namespace(**vars(given) | {"json": False}))
            return type_ahead(model, given)
        refuse_poem_options(given)
        prompt = sys.stdin.read() if given.prompt == "-" else (given.prompt or "").replace("\\n", "\n")
        length = LENGTH if given.length is None else given.length
        text = model.generate(
            prompt,
            length=None if length == 0 else length,
            stop=None if given.stop is None else [one.replace("\\n", "\n") for one in given.stop],
            temperature=1.0 if given.temperature is None else given.temperature,
            top_k=given.top_k,
            top_p=given.top_p,
            repetition_penalty=1.0 if given.repetition_penalty is None else given.repetition_penalty,
            seed=given.seed,
        )
        try:
            if not given.no_prompt:
                sys.stdout.write(prompt)
            for part in until_interrupted(text):
                sys.stdout.write(part)
                sys.stdout.flush()
        except KeyboardInterrupt:
            sys.stdout.write("\n")
            return 130
    sys.stdout.write("\n")
    return 0


def parser() -> VerbParser:
    """What the verb takes."""
    made = VerbParser(
        "generate", "Write on from a prompt, until `length`, `stop` or Ctrl-C. In --prompt and --stop, \\n is a line's end."
    )
    made.add_argument("directory", metavar="DIR", help="the run directory of a language model")
    made.add_argument("--prompt", metavar="TEXT", help="the text to go on from; - reads it from stdin")
    made.add_argument("--no_prompt", action="store_true", help="do not print the prompt again")
    made.add_argument("--length", metavar="N", type=int, help=f"tokens to write; 0 never ends [{LENGTH}]")
    made.add_argument("--stop", metavar="TEXT", action="append", help="end before this text; may be given several times")
    warm, again = "less is safer; 0 takes the likeliest [1; poems 0.8]", "above 1, less is repeated [1; poems 1.2]"
    made.add_argument("--temperature", metavar="X", type=float, help=warm)
    made.add_argument("--top_k", metavar="N", type=int, help="draw from the N likeliest tokens only")
    made.add_argument(
        "--top_p", metavar="X", type=float, help="draw from the likeliest tokens that hold this probability [1; poems 0.95]"
    )
    made.add_argument("--repetition_penalty", metavar="X", type=float, help=again)
    made.add_argument("--seed", metavar="N", type=int, help="the same seed writes the same text")
    add_poem_options(made)
    add_type_ahead_options(made)
    add_model_options(made)
    return made


def open_language_model(given: argparse.Namespace, directory: str | None = None) -> LanguageModel:
    """Load the model that the arguments name.

    Args:
        given: the arguments.
        directory: another run directory than theirs.

    Raises:
        ConfigError: it is not a language model.
    """
    from carousel.cli.user_code import open_run
    from carousel.tasks.lm import LanguageModel

    model = open_run(directory or given.directory, code=given.code, cell=given.cell, device=given.device)
    if not isinstance(model, LanguageModel):
        what = f"{directory or given.directory}: a run of the task {model.task!r}."
        raise ConfigError(explain(what, expected="a language model", advice="carousel fit lm --train FILE --out DIR"))
    return model


@contextmanager
def notes_said() -> Iterator[None]:
    """Say warnings as notes of one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: say(f"note: {message}")
        yield
