"""``carousel pinyin DIR``: pinyin to Chinese characters, with a language model."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence

from carousel.cli.console import say
from carousel.cli.generate import notes_said, open_language_model
from carousel.cli.parsing import VerbParser, add_model_options, check_option_names

__all__ = ["parser", "run"]

EPILOG = """\
Tones and blanks may be typed or not; what is no pinyin stays as it is.
  carousel pinyin DIR "wo xihuan chongwu"                  我喜欢宠物
  carousel pinyin DIR woxihuanchongwu --count 3            the three likeliest, with their scores
  carousel pinyin DIR < FILE                               one line for each"""


def run(arguments: Sequence[str]) -> int:
    """Run the verb on what follows it."""
    made = parser()
    check_option_names(arguments, made._option_string_actions)
    given = made.parse_intermixed_args(list(arguments))  # options may stand between DIR and TEXT
    with notes_said():
        model = open_language_model(given)
        backward = None if given.backward is None else open_language_model(given, given.backward)

        from carousel.tasks.lm.pinyin import PinyinInput

        typed = PinyinInput(model, backward, phrases=given.phrases, beam=given.beam, spaced=given.spaced)
        for line in _lines(given):
            found = typed.convert(line, given.count)
            if found[0].kept and not given.json:
                say(f"note: no pinyin, kept as it is: {', '.join(map(repr, found[0].kept[:10]))}")
            if given.json:
                told = [{"text": one.text, "score": one.score} for one in found]
                print(
                    json.dumps(
                        {"pinyin": line, "text": found[0].text, "candidates": told, "kept": found[0].kept}, ensure_ascii=False
                    )
                )
            elif given.count == 1:
                print(found[0].text)
            else:
                for one in found:
                    print(f"{one.score:.4f}\t{one.text}")
            sys.stdout.flush()
    return 0


def parser() -> VerbParser:
    """What the verb takes."""
    made = VerbParser("pinyin", "Turn pinyin into Chinese characters with a language model of characters.", EPILOG)
    made.add_argument("directory", metavar="DIR", help="the run directory of a language model (fit lm --unit char)")
    made.add_argument("text", metavar="TEXT", nargs="*", default=[], help="pinyin; nothing, or -, reads lines from stdin")
    made.add_argument("--count", metavar="N", type=int, default=1, help="the N likeliest, each after its score in nats [1]")
    made.add_argument("--json", action="store_true", help="print one JSON object for each line")
    made.add_argument("--beam", metavar="N", type=int, default=32, help="hypotheses kept at each place [32]")
    how = "letters between blanks that are a syllable are that one: xian is never xi'an"
    made.add_argument("--spaced", action="store_true", help=how)
    made.add_argument(
        "--backward", metavar="DIR2", help="a second model that reads backward, for better answers in twice the time"
    )
    counted = "a text, best the training data, whose phrases are counted and help: better answers for a few seconds"
    made.add_argument("--phrases", metavar="FILE", help=counted)
    add_model_options(made)
    return made


def _lines(given: argparse.Namespace) -> Iterable[str]:
    from carousel.tasks.lm.inputs import read_lines

    if given.text and given.text != ["-"]:
        return read_lines([" ".join(given.text)])
    if sys.stdin is not None and sys.stdin.isatty():
        say("Reading lines; end with Ctrl-D.")
    return read_lines("-")
