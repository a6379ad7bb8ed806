"""``carousel score DIR [FILE|-]``: what a language model thinks of sentences, places and blanks."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from carousel.cli.console import print_table, say
from carousel.cli.generate import notes_said, open_language_model
from carousel.cli.parsing import VerbParser, add_model_options
from carousel.errors import ConfigError, DataError, explain

if TYPE_CHECKING:
    from carousel.tasks.lm import LanguageModel
    from carousel.tasks.lm.writing import LineScore

__all__ = ["parser", "run"]

EPILOG = """\
A line's score is its log-probability in nats, its end included: the total, then the mean over its tokens.
  carousel score DIR FILE --rank                           the most valid sentence first
  echo 'the cat' | carousel score DIR --next 5             what may come next; [] in a line marks another place
  echo 'The keys [was|were] lost.' | carousel score DIR --fill --backward DIR2"""
PLACE = "[]"
TRIED = 50  # candidates for a place with text behind it, which are then compared in the whole line


def run(arguments: Sequence[str]) -> int:
    """Run the verb on what follows it."""
    given = parser().parse(arguments)
    jobs: dict[str, Callable[[LanguageModel, argparse.Namespace], None]] = {
        "next": _next,
        "fill": _fill,
        "blanks": _blanks,
        "validity": _validity,
        "agreement": _agreement,
    }
    chosen = [name for name in jobs if getattr(given, name) is not None and getattr(given, name) is not False]
    if len(chosen) > 1:
        raise ConfigError(explain("score does one thing at a time.", got=" and ".join(f"--{name}" for name in chosen)))
    for name in ("rank", "continuous", "tokens"):
        if chosen and getattr(given, name):
            raise ConfigError(explain("score does one thing at a time.", got=f"--{name} and --{chosen[0]}"))
    if given.rank and given.continuous:
        raise ConfigError(explain("--rank compares lines by themselves.", got="--continuous", advice="leave one of them out"))
    if given.file == "-" and given.agreement is None and sys.stdin is not None and sys.stdin.isatty():
        say("Reading lines; end with Ctrl-D.")
    with notes_said():
        jobs.get(chosen[0] if chosen else "", _lines)(open_language_model(given), given)
    return 0


def parser() -> VerbParser:
    """What the verb takes."""
    made = VerbParser("score", "Score sentences with a language model.", EPILOG)
    made.add_argument("directory", metavar="DIR", help="the run directory of a language model")
    made.add_argument("file", metavar="FILE", nargs="?", default="-", help="the lines; - or nothing reads stdin")
    made.add_argument("--json", action="store_true", help="print one JSON object for each line")
    made.add_argument("--tokens", action="store_true", help="also the log-probability of each token")
    made.add_argument("--rank", action="store_true", help="sort the lines by the mean over their tokens, the best first")
    how = "read each line after all before it, as evaluate does; else each by itself"
    made.add_argument("--continuous", action="store_true", help=how)
    made.add_argument("--next", metavar="N", type=int, help="the N likeliest tokens at the end of each line, or at [] in it")
    made.add_argument("--fill", action="store_true", help="fill the blank of each line, [one|another], among its candidates")
    made.add_argument("--backward", metavar="DIR2", help="a second model that reads backward, for --fill, --next and tests")
    tests = made.add_argument_group("tests")
    cut = "cut a word out of each line of FILE and choose among N"
    tests.add_argument("--blanks", metavar="N", type=int, help=cut)
    judged = "FILE and TRAIN hold judged sentences (CoLA's columns): a threshold from TRAIN, the correlation on FILE"
    tests.add_argument("--validity", metavar="TRAIN", help=judged)
    made_up = "choose verbs in N sentences made from templates, by the distance of the subject; 0 for all sentences"
    tests.add_argument("--agreement", metavar="N", type=int, help=made_up)
    tests.add_argument("--seed", metavar="N", type=int, default=1, help="what the tests draw from [1]")
    add_model_options(made)
    return made


def _lines(model: LanguageModel, given: argparse.Namespace) -> None:
    scores: Iterator[LineScore] = model.score_lines(given.file, continuous=given.continuous)
    if given.rank:
        ranked = sorted(scores, key=lambda line: -float("inf") if line.per_token is None else line.per_token, reverse=True)
        scores = iter(ranked)
    for line in scores:
        if given.json:
            told: dict[str, Any] = {"text": line.text, "log_probability": line.total, "per_token": line.per_token}
            told["token_count"] = len(line.numbers)
            if given.tokens:
                told["tokens"] = [list(pair) for pair in zip(line.tokens, line.log_probabilities.tolist(), strict=True)]
            print(json.dumps(told, ensure_ascii=False))
            continue
        mean = "" if line.per_token is None else f"{line.per_token:.4f}"
        print(f"{line.total:.4f}\t{mean}\t{line.text}")
        if given.tokens:
            for token, value in zip(line.tokens, line.log_probabilities.tolist(), strict=True):
                print(f"\t{value:.4f}\t{_shown(token)}")


def _next(model: LanguageModel, given: argparse.Namespace) -> None:
    from carousel.tasks.lm.blanks import Blank, fill_blanks
    from carousel.tasks.lm.inputs import read_lines

    if given.next < 1:
        raise ConfigError(explain("--next must be at least 1.", got=str(given.next)))
    backward = _second(given)
    for line in read_lines(given.file):
        before, marked, after = line.partition(PLACE)
        if marked and (after.strip() or backward):
            tokens = tuple(token for token, _ in model.next_tokens(before, max(TRIED, given.next)))
            (found,) = fill_blanks([Blank(before, tokens, after)], model, backward)
            pairs = sorted(zip(tokens, found.probabilities, strict=True), key=lambda pair: -pair[1])[: given.next]
        else:
            pairs = model.next_tokens(before, given.next)
        if given.json:
            print(json.dumps({"text": line, "next": [list(pair) for pair in pairs]}, ensure_ascii=False))
        else:
            print("  ".join(f"{_shown(token)} {share:.3f}" for token, share in pairs) + f"\t{line}")


def _fill(model: LanguageModel, given: argparse.Namespace) -> None:
    from carousel.tasks.lm.blanks import fill_blanks, parse_blank
    from carousel.tasks.lm.inputs import read_lines

    backward = _second(given)
    for line in read_lines(given.file):
        if not line.strip():
            print()
            continue
        (found,) = fill_blanks([parse_blank(line)], model, backward)
        shares = dict(zip(found.blank.candidates, found.probabilities, strict=True))
        filled = found.blank.filled(found.best)
        if given.json:
            print(json.dumps({"text": filled, "probabilities": shares}, ensure_ascii=False))
        else:
            print("  ".join(f"{name or '(nothing)'} {share:.3f}" for name, share in shares.items()) + f"\t{filled}")


def _blanks(model: LanguageModel, given: argparse.Namespace) -> None:
    from carousel.tasks.lm.blanks import cut_blanks, fill_blanks
    from carousel.tasks.lm.inputs import read_lines

    if given.blanks < 2:
        raise ConfigError(explain("--blanks must be at least 2: what to choose from.", got=str(given.blanks)))
    blanks = cut_blanks(
        read_lines(given.file), candidates=given.blanks, seed=given.seed, characters=model.inputs_.unit == "char"
    )
    if not blanks:
        raise DataError(
            explain("no line is long enough to cut a blank.", expected="lines of at least three words"), path=given.file
        )
    backward = _second(given)
    results = {"forward": fill_blanks(blanks, model)}
    if backward is not None:
        results |= {"backward": fill_blanks(blanks, backward), "both": fill_blanks(blanks, model, backward)}
    told: dict[str, float] = {
        f"{name}_accuracy": sum(one.best == one.blank.right for one in found) / len(blanks) for name, found in results.items()
    }
    _print_measures(told | {"chance": 1 / given.blanks, "count": len(blanks)}, given)


def _validity(model: LanguageModel, given: argparse.Namespace) -> None:
    from carousel.tasks.lm.validity import judge_validity, read_judgements

    found = judge_validity(model, read_judgements(given.validity), read_judgements(given.file))
    _print_measures(vars(found), given)


def _agreement(model: LanguageModel, given: argparse.Namespace) -> None:
    from carousel.tasks.lm.agreement import agreement_sentences, score_agreement

    known = set(model.inputs_.tokens) if model.inputs_.unit == "word" else None
    sentences = agreement_sentences(most=given.agreement or None, seed=given.seed, known=known)
    if not sentences:
        raise ConfigError(
            "the model knows none of the words that these sentences are made of: they are English, in small letters."
        )
    found = score_agreement(sentences, model, _second(given))
    measures: dict[str, Any] = {"accuracy": found.accuracy, "attracted": found.attracted, "count": found.count}
    if given.json:
        far = {str(distance): {"accuracy": share, "count": count} for distance, (share, count) in found.by_distance.items()}
        print(json.dumps(measures | {"by_distance": far}))
        return
    rows = [[f"{distance} words between", f"{share:.4f}", str(count)] for distance, (share, count) in found.by_distance.items()]
    if found.attracted is not None:
        rows.append(["nearest noun of the other number", f"{found.attracted:.4f}", ""])
    print_table(["subject and verb", "accuracy", "count"], [*rows, ["all", f"{found.accuracy:.4f}", str(found.count)]])


def _second(given: argparse.Namespace) -> LanguageModel | None:
    """The model that reads backward, if one was named."""
    if given.backward is None:
        return None
    model = open_language_model(given, given.backward)
    if not model.inputs_.backward:
        what = f"{given.backward}: this model reads forward."
        raise ConfigError(explain(what, advice="train it with --direction backward"))
    return model


def _print_measures(measures: dict[str, Any], given: argparse.Namespace) -> None:
    if given.json:
        print(json.dumps(measures))
        return
    rows = [[name, str(value) if isinstance(value, int) else f"{value:.4f}"] for name, value in measures.items()]
    print_table(["measure", "value"], rows)


def _shown(token: str) -> str:
    """A token as it can stand in a line."""
    return token if token.isprintable() and token.strip() else repr(token)
