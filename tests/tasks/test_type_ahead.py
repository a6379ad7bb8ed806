"""Type-ahead: completions of half-typed words, states that are kept, deleting, and the command."""

import io
import json
import math
import os
import pty

import numpy as np
import pytest

from carousel.cli import type_ahead as command
from carousel.cli.main import main
from carousel.errors import ConfigError, DataError, NotFittedError
from carousel.tasks import LanguageModel
from carousel.tasks.lm import type_ahead as module
from tasks.test_lm import QUICK, sentences

UNITS = ["word", "char", "byte", "subword"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The run directory of a model of words."""
    folder = tmp_path_factory.mktemp("typed") / "run"
    options = QUICK | {"epochs": 5, "lr": 0.04, "unit": "word"}
    LanguageModel(**options).fit(sentences(200, seed=1), valid=sentences(10, seed=2), out=folder)
    return folder


@pytest.fixture(scope="module")
def models(run):
    found = {"word": LanguageModel.load(run, device="cpu")}
    for unit in UNITS[1:]:
        options = QUICK | {"epochs": 4, "lr": 0.04, "batch_size": 8, "bptt": 16, "unit": unit, "vocab_size": 280}
        found[unit] = LanguageModel(**options).fit(sentences(200, seed=1), valid=sentences(10, seed=2))
    return found


def shown(found):
    return [(one.text, one.added, round(one.probability, 4)) for one in found.best]


# --- completions ------------------------------------------------------------------------------------------------------


def test_words_are_completed_by_their_share(models):
    model = models["word"]
    session = model.type_ahead(50)
    found = session.type("the cat s")
    after = dict(model.next_tokens("the cat", 100))
    known = {word: share for word, share in after.items() if word.startswith("s")}
    assert {one.text: one.probability for one in found.best} == pytest.approx(
        {word: share / sum(known.values()) for word, share in known.items()}, rel=1e-4
    )
    assert found.prefix + found.best[0].added == found.best[0].text == max(known, key=known.get)
    assert found.prefix == "s"
    assert session.type("x").best == ()
    assert session.type(" ").prefix == ""  # an unknown word is read as one


def test_after_a_blank_the_next_word_comes(models):
    found = models["word"].type_ahead(3).type("the dogs ")
    pairs = models["word"].next_tokens("the dogs", 10)
    wanted = [(word, share) for word, share in pairs if word != "<eos>"]
    assert [one.text for one in found.best] == [word for word, _ in wanted[:3]]
    assert found.best[0].probability / found.best[1].probability == pytest.approx(wanted[0][1] / wanted[1][1], rel=1e-4)


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_completes(models, unit):
    found = models[unit].type_ahead(4).type("the ca")
    added = {one.text: one.added for one in found.best}
    assert added["cat"] == "t"
    assert list(added).index("cat") <= (unit == "byte")  # 257 tokens are much to learn: the word may end before
    assert found.prefix == "ca"
    shares = [one.probability for one in found.best]
    assert shares == sorted(shares, reverse=True)
    assert 0.4 < sum(shares) <= 1 + 1e-6
    assert found.milliseconds > 0
    assert len({one.text for one in found.best}) == len(found.best) <= 4


def test_a_search_by_letters_finds_what_the_model_expects(models):
    """The probability of a word's end is that of its letters and of a blank, a sign or the line's end behind it."""
    model = models["char"]
    (best, *_) = model.type_ahead(1).type("the ca").best
    names = model.inputs_.tokens
    ends = [number for number, name in enumerate(names) if number and not name.isalnum()]
    reading, total = model.start().read_all(model.inputs_.encode("the ca")), 0.0
    for number in model.inputs_.encode(best.added):
        total += reading.log_probabilities[0, number]
        reading.read([number])
    assert best.probability == pytest.approx(math.exp(total) * np.exp(reading.log_probabilities[0, ends]).sum(), rel=1e-4)


def test_scripts_without_blanks():
    lines = ["我们喜欢宠物", "我们喜欢中国"] * 20
    model = LanguageModel(**QUICK | {"epochs": 4, "unit": "char"}).fit(lines, valid=lines[:2])
    found = model.type_ahead().type("我们")
    assert found.prefix == ""
    assert found.best[0].text.startswith("喜欢")


# --- states -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS)
def test_typing_and_deleting_leads_where_typing_at_once_leads(models, unit):
    model = models[unit]
    wanted = shown(model.type_ahead().type("the cat\nthe dogs in the h"))
    session = model.type_ahead()
    for letter in "the cat\nthe dogs in the h":
        found = session.type(letter)
    assert shown(found) == wanted
    session.type("ouse x y ")
    assert shown(session.back(len("ouse x y "))) == wanted
    for _ in range(6):
        session.back()
    assert shown(session.type(" the h")) == wanted
    assert session.text == "the cat\nthe dogs in the h"


@pytest.mark.parametrize("unit", UNITS)
def test_memory_is_bounded(models, unit):
    session = models[unit].type_ahead(kept=8)
    for _ in range(80):
        session.type("the cat ")
        assert len(session._marks) <= 8
        assert len(session.text) <= 3 * module.LONGEST
    wanted = shown(session.type("s"))
    assert shown(session.back()) != wanted
    assert shown(session.type("s")) == wanted
    assert session.back(10_000).prefix == ""  # older than all that is kept
    assert session.text == ""
    assert shown(session.type("the cat s")) == shown(models[unit].type_ahead().type("the cat s"))


def test_a_long_text_at_once(models, monkeypatch):
    monkeypatch.setattr(module, "LONG", 300)
    for unit in ("word", "char"):
        model = models[unit]
        many = "the cat sits here\n" * 50 + "the dogs s"
        wanted = model.type_ahead(kept=4)
        for start in range(0, len(many), 100):
            found = wanted.type(many[start : start + 100])
        assert shown(model.type_ahead(kept=4).type(many)) == shown(found)
    session = models["word"].type_ahead()
    session.type("x" * 5000)  # longer than a word can be: read as an unknown one
    assert len(session.text) < 1000
    assert session.type(" the ca").best[0].text == "cat"


def test_a_keystroke_reads_only_what_is_new(models, monkeypatch):
    from carousel.tasks.lm.reading import Reading

    read = []
    real = Reading.read
    monkeypatch.setattr(Reading, "read", lambda self, numbers: read.append(len(numbers)) or real(self, numbers))
    session = models["word"].type_ahead()
    session.type("the cat sits in the house ")
    read.clear()
    session.type("h")
    session.type("e")
    session.back()
    assert not read
    session.type("ere ")
    assert read == [1]


def test_what_cannot_be_typed(models):
    with pytest.raises(NotFittedError):
        LanguageModel().type_ahead()
    for arguments in ({"count": 0}, {"kept": 0}, {"count": True}):
        with pytest.raises(ConfigError):
            models["word"].type_ahead(**arguments)
    with pytest.raises(ConfigError):
        models["word"].type_ahead().back(-1)
    with pytest.raises(DataError):
        models["word"].type_ahead().type(3)
    assert models["word"].type_ahead().type("").prefix == ""


# --- the command ------------------------------------------------------------------------------------------------------


def test_lines_from_a_pipe(run, tmp_path, monkeypatch, capsys):
    def piped(*options):
        with open(tmp_path / "lines.txt", "w+", encoding="utf-8") as lines:
            lines.write("the ca\n\nthe dogs s\n")
            lines.seek(0)
            monkeypatch.setattr("sys.stdin", lines)
            code = main(["generate", str(run), "--type-ahead", *options])
        return code, capsys.readouterr()

    code, told = piped("--completions", "2")
    first, empty, last = told.out.splitlines()
    assert code == 0
    assert first.startswith("cat ")
    assert first.endswith(" ms\tthe ca")
    assert empty.endswith(" ms\t")
    assert last.startswith("sit ")
    assert "16 keystrokes: median" in told.err
    assert "95 % within" in told.err
    code, told = piped("--json", "--prompt", "the cat sits here\\n")
    objects = [json.loads(line) for line in told.out.splitlines()]
    assert [one["text"] for one in objects] == ["the ca", "", "the dogs s"]
    assert objects[0]["completions"][0]["added"] == "t"
    for options in (["--seed", "1"], ["--prompt", "-"], ["--completions", "0"], ["--form", "qijue"]):
        code, told = piped(*options)
        assert code == 2
        assert told.err.startswith("carousel: error:")


def test_keys(models):
    screen, times = [], []
    session = models["word"].type_ahead(2)
    keys = [*"the ca", "\t", "s", "\x7f", "\x01", *"si", "\n", *"the"]
    command._on_terminal(session, "", iter(keys), screen.append, times)
    assert session.text == "the cat si\nthe"
    assert len(times) == len(keys) - 1
    assert any("cat 0." in part or "cat 1." in part for part in screen)


def test_keys_of_a_terminal(monkeypatch):
    main_end, other = pty.openpty()
    try:
        with os.fdopen(other) as terminal:
            monkeypatch.setattr("sys.stdin", terminal)
            with command._terminal_keys() as keys:
                os.write(main_end, "a\x1b[Aé\r\x04b".encode())
                assert list(keys) == ["a", "é", "\n"]
    finally:
        os.close(main_end)


def test_ctrl_c_ends_cleanly(run, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_on_lines", interrupted)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["generate", str(run), "--type-ahead"]) == 130
    assert "Traceback" not in capsys.readouterr().err
