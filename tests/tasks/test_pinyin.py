"""Pinyin to characters: the lattice, the readings, counted sequences, the search, and the command."""

import itertools
import json
import math
import random

import numpy as np
import pytest

from carousel.cli.main import main
from carousel.data import Tokenizer, Vocabulary
from carousel.errors import ConfigError, DataError, NotFittedError
from carousel.tasks import LanguageModel
from carousel.tasks.lm.inputs import LanguageInputs
from carousel.tasks.lm.lattice import Letters, Plain, parse_pinyin, sentences
from carousel.tasks.lm.ngrams import NGrams
from carousel.tasks.lm.pinyin import RARE, PinyinInput
from carousel.tasks.lm.readings import Readings, plain_letter, sentence_syllables
from tasks.test_lm import QUICK

WORDS = ["我们", "喜欢", "宠物", "中国", "西安", "先生", "银行", "行长", "女儿", "不是", "他们", "她们"]


def text(count, seed):
    draw = random.Random(seed)
    return [
        f"{draw.choice(['我们', '先生', '女儿'])}{draw.choice(['喜欢', '不是'])}{draw.choice(WORDS)}。" for _ in range(count)
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zh")
    (folder / "train.txt").write_text("\n".join(text(150, 1)) + "\n", encoding="utf-8")
    for name in ("forward", "backward"):
        model = LanguageModel(**QUICK | {"epochs": 6, "lr": 0.03, "unit": "char", "direction": name})
        model.fit(folder / "train.txt", valid=text(20, 2), out=folder / name)
    return folder


@pytest.fixture(scope="module")
def model(runs):
    return LanguageModel.load(runs / "forward", device="cpu")


@pytest.fixture(scope="module")
def backward(runs):
    return LanguageModel.load(runs / "backward", device="cpu")


@pytest.fixture(scope="module")
def readings(model):
    return Readings(model.inputs_.tokens)


def paths(letters):
    """All ways through a lattice."""
    found, open_ways = [], [(0, ())]
    while open_ways:
        place, names = open_ways.pop()
        if place == letters.size:
            found.append(names)
        open_ways += [(arc.end, (*names, arc.syllable)) for arc in letters.arcs if arc.start == place]
    return set(found)


# --- readings and lattice ---------------------------------------------------------------------------------------------


def test_all_readings_of_a_character_are_known(readings, model):
    names = model.inputs_.tokens
    for syllable, character in (("xing", "行"), ("hang", "行"), ("zhang", "长"), ("chang", "长"), ("nv", "女")):
        assert character in [names[number] for number in readings.candidates(syllable).numbers]
    choice = readings.candidates("hang")
    assert choice.rare[[names[number] for number in choice.numbers].index("行")] == 1  # the second reading
    assert "。" not in "".join(names[number] for syllable in readings._all for number in readings.candidates(syllable).numbers)
    assert readings.spelled("nue") is None
    assert Readings(["略"]).spelled("lue") == "lve"
    assert not {"n", "m", "ng"} & Readings(["嗯", "呣"])._all.keys()
    assert Readings(["。", "a"]).longest == 0


def test_tones_narrow_the_choice():
    readings = Readings(["妈", "麻", "马", "骂", "吗", "不"])
    assert readings.candidates("ma", 4).numbers.tolist() == [3]
    assert readings.candidates("ma", 3).numbers.tolist() == [2, 4]
    assert readings.candidates("ma", 5).numbers.tolist() == readings.candidates("ma").numbers.tolist() == [0, 1, 2, 3, 4]
    assert readings.candidates("bu", 2).numbers.tolist() == [5]  # it changes its tone
    assert Readings(["妈"]).candidates("ma", 3).numbers.tolist() == [0]  # rather than none


def test_letters_lose_their_marks():
    assert [plain_letter(letter) for letter in "aÀǐüǜŃ"] == [
        ("a", None), ("a", 4), ("i", 3), ("v", None), ("v", 4), ("n", 2),
    ]  # fmt: skip
    assert [plain_letter(letter) for letter in "çß1我'"] == [None] * 5


def test_a_run_of_letters_is_cut_in_all_ways():
    readings = Readings(list("西安先方案反干翻"))
    (letters,) = parse_pinyin("xianfangan", readings)
    assert paths(letters) == {
        (*first, *last) for first in (("xian",), ("xi", "an")) for last in (("fang", "an"), ("fan", "gan"))
    }
    assert paths(letters.mirrored()) == {names[::-1] for names in paths(letters)}
    (letters,) = parse_pinyin("xi'an", readings)
    assert paths(letters) == {("xi", "an")}
    assert [paths(part) for part in parse_pinyin("xian fan gan", readings, spaced=True)] == [
        {("xian",)},
        {("fan",)},
        {("gan",)},
    ]
    (letters,) = parse_pinyin("xi1an1", readings)
    assert [(arc.syllable, arc.tone) for arc in letters.arcs] == [("xi", 1), ("an", 1)]
    (letters,) = parse_pinyin("Xīān", readings)
    assert [(arc.syllable, arc.tone) for arc in letters.arcs] == [("xi", 1), ("an", 1)]


def test_what_is_no_pinyin_stays(readings):
    parts = parse_pinyin("women xihuan  iPhone15, 中国 2024nian!", readings)
    plain = [part for part in parts if isinstance(part, Plain)]
    assert [part.text for part in plain] == ["  ", "iPhone", "15, 中国 2024", "nian", "!"]
    assert [part.letters for part in plain] == [False, True, False, True, False]
    assert sum(isinstance(part, Letters) for part in parts) == 2  # the blank between them is gone
    assert parse_pinyin("", readings) == []
    assert list(sentences([])) == []


def test_sentences_of_phrases_tell_how_characters_are_read():
    assert sentence_syllables("银行行长a。") == ["yin", "hang", "hang", "zhang", "", ""]
    assert sentence_syllables("") == []


# --- counted sequences ------------------------------------------------------------------------------------------------


def test_counted_sequences_are_probabilities():
    tokens = ["\n", *"abc"]
    inputs = LanguageInputs(Tokenizer("char", False), False, True, False, Vocabulary(tokens))
    counted = NGrams(inputs, ["abc", "abcab", "", "cab"])
    everything = np.arange(5)
    for before in itertools.product(range(5), repeat=3):
        shares = counted.probabilities([before], everything)
        assert shares.sum() == pytest.approx(1.0)
        assert (shares > 0).all()
    a, b, c = 2, 3, 4
    assert (
        counted.probabilities([(c, a, b)], np.array([c, b]))[0].tolist()[0]
        > counted.probabilities([(c, a, b)], np.array([a]))[0, 0]
    )
    line = np.array(inputs.encode_line("abc"), np.int32)
    alone = [counted.probabilities([before], np.array([number]))[0, 0] for before, number in zip(
        [(1, 1, 1), (1, 1, a), (1, a, b), (a, b, c)], line, strict=True
    )]  # fmt: skip
    assert counted.line(line).tolist() == pytest.approx(alone)
    for order in (1, 2):
        assert NGrams(inputs, ["abc"], order).line(line).shape == (4,)
    with pytest.raises(ConfigError, match="order"):
        NGrams(inputs, ["abc"], 5)
    with pytest.raises(DataError, match="no text"):
        NGrams(inputs, ["", " "])


# --- the search -------------------------------------------------------------------------------------------------------


def test_a_wide_beam_finds_the_best_of_all(model):
    """Against every combination of characters, scored one by one."""
    typed = PinyinInput(model, beam=100_000)
    (letters,) = parse_pinyin("tamenxian", typed.readings)
    names = model.inputs_.tokens
    scores = {}
    for way in paths(letters):
        choices = [typed.readings.candidates(syllable) for syllable in way]
        for places in itertools.product(*(range(len(choice.numbers)) for choice in choices)):
            found = "".join(names[choice.numbers[place]] for choice, place in zip(choices, places, strict=True))
            cost = RARE * sum(float(choice.rare[place]) for choice, place in zip(choices, places, strict=True))
            scores[found] = next(model.score_lines([found])).total - cost
    found = {
        "".join(step.text for step in steps): score
        for score, steps in typed._searches[0].run(parse_pinyin("tamenxian", typed.readings))
    }
    assert found == {text: pytest.approx(score, abs=0.1) for text, score in scores.items()}  # merged ones are estimates
    assert max(found, key=found.get) == max(scores, key=scores.get)
    assert max(found.values()) == pytest.approx(max(scores.values()), abs=1e-4)
    assert len(found) > 1


def test_characters_are_found(model, backward, runs):
    lines = sorted({line for line in text(30, 5) if "们。" not in line or "我们。" in line})[:12]
    for options in ({}, {"backward": backward}, {"phrases": runs / "train.txt"}, {"backward": backward, "phrases": lines}):
        typed = PinyinInput(model, **options)
        for spaced in (" ", ""):
            right = 0
            for line in lines:
                (best, *_) = typed.convert(spaced.join(filter(None, sentence_syllables(line))) + "。")
                right += best.text == line
            assert right >= 0.8 * len(lines), options
    several = typed.convert("tamen", 5)
    assert [one.score for one in several] == sorted((one.score for one in several), reverse=True)
    assert len({one.text for one in several}) == len(several) > 1


def test_the_dictionary_of_phrases_decides_between_readings():
    """Two characters that both can be read so, and a model that does not know better."""
    model = LanguageModel(**QUICK | {"epochs": 1, "unit": "char"}).fit(["银行", "银形", "长行"] * 5, valid=["银行"])
    assert PinyinInput(model).convert("yinhang")[0].text == "银行"


def test_text_around_stays(model):
    typed = PinyinInput(model)
    assert [one.text for one in typed.convert("", 3)] == [""]
    assert typed.convert("  ")[0].text == "  "
    (found,) = typed.convert("xqz《women》ok, 我 2024" + "-" * 40 + "xihuan。xihuan")
    assert found.text == "xqz《我们》ok, 我 2024" + "-" * 40 + "喜欢。喜欢"
    assert found.kept == ("xqz", "ok")
    assert math.isfinite(found.score)


def test_a_very_long_line(model):
    typed = PinyinInput(model, beam=1)
    found = typed.convert("women" * 5000)[0].text
    assert len(found) == 10_000
    assert set(found) <= {"我", "们"}
    assert typed.convert("xqz" * 10_000)[0].text == "xqz" * 10_000


def test_what_cannot_be_converted(model, backward):
    for options in ({"beam": 0}, {"backward": model}):
        with pytest.raises(ConfigError):
            PinyinInput(model, **options)
    with pytest.raises(ConfigError, match="backward"):
        PinyinInput(backward)
    with pytest.raises(NotFittedError):
        PinyinInput(LanguageModel())
    words = LanguageModel(**QUICK | {"epochs": 1, "unit": "word"}).fit(["a b"] * 5, valid=["a b"])
    with pytest.raises(ConfigError, match="characters"):
        PinyinInput(words)
    latin = LanguageModel(**QUICK | {"epochs": 1, "unit": "char"}).fit(["ab"] * 5, valid=["ab"])
    with pytest.raises(ConfigError, match="no Chinese"):
        PinyinInput(latin)
    typed = PinyinInput(model)
    with pytest.raises(ConfigError, match="count"):
        typed.convert("wo", 0)
    for bad in (3, "wo\nwo"):
        with pytest.raises(DataError):
            typed.convert(bad)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command(runs, capsys, monkeypatch, tmp_path):
    run = str(runs / "forward")
    assert main(["pinyin", run, "women", "xihuan"]) == 0
    assert capsys.readouterr().out == "我们喜欢\n"
    assert main(["pinyin", run, "--count", "2", "tamen", "--backward", str(runs / "backward")]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert {first[-2:], second[-2:]} == {"他们", "她们"}
    assert float(first.split("\t")[0]) > float(second.split("\t")[0])
    assert main(["pinyin", run, "xqz women", "--json", "--phrases", str(runs / "train.txt")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["pinyin"], told["text"], told["kept"]) == ("xqz women", "xqz 我们", ["xqz"])
    with open(tmp_path / "lines.txt", "w+", encoding="utf-8") as lines:
        lines.write("women\n\nxqz xihuan\n")
        lines.seek(0)
        monkeypatch.setattr("sys.stdin", lines)
        assert main(["pinyin", run]) == 0
    told = capsys.readouterr()
    assert told.out == "我们\n\nxqz 喜欢\n"
    assert "'xqz'" in told.err


def test_errors_of_the_command(runs, capsys):
    run = str(runs / "forward")
    for arguments in (
        ["pinyin"],
        ["pinyin", run, "wo", "--count", "0"],
        ["pinyin", run, "wo", "--beem", "3"],
        ["pinyin", run, "wo", "--phrases", "missing.txt"],
        ["pinyin", str(runs / "backward"), "wo"],
        ["pinyin", str(runs), "wo"],
    ):
        assert main(arguments) == 2
        told = capsys.readouterr()
        assert told.err.startswith("carousel: error:")
        assert "Traceback" not in told.err
