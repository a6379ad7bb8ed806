"""Texts into tokens."""

import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carousel.data import Tokenizer
from carousel.errors import CheckpointError, ConfigError, NotFittedError

WORD = Tokenizer("word")


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Hello, World!", "hello , world !"),
        ('"Good" (very).', '" good " ( very ) .'),
        ("I don't; they'RE, couldn't've", "i do n't ; they 're , could n't 've"),
        ("It’s the dog's ‘bone’", "it 's the dog 's ‘ bone ’"),
        ("rock'n'roll at 5 o'clock, l'homme", "rock'n'roll at 5 o'clock , l'homme"),
        ("1,000.50 at 9:30, -3 or +.5%", "1,000.50 at 9:30 , -3 or +.5 %"),
        ("a 10-year-old re-imagining--really", "a 10-year-old re-imagining -- really"),
        ("Well... what?! No!!!", "well ... what ?! no !!!"),
        ("see https://a.org/b?c=d, www.x.com.", "see https://a.org/b?c=d , www.x.com ."),
        ("mail me@home.org.", "mail me@home.org ."),
        ("@anna loves #rnn's", "@anna loves #rnn 's"),
        ("The end.Next by amazon.com.", "the end . next by amazon.com ."),
        ("Mr. J. Doe of the U.S. and plan b.", "mr. j. doe of the u.s. and plan b ."),
        ("and/or c++ r&d $5", "and/or c + + r&d $ 5"),
        ("我爱you，真的!", "我 爱 you ， 真 的 !"),
        ("カラオケ大好き", "カ ラ オ ケ 大 好 き"),
        ("한국어 좋아요.", "한국어 좋아요 ."),
        ("हिन्दी में लिखा", "हिन्दी में लिखा"),
        ("cafe\u0301 naïve", "café naïve"),
        ("fun 👍🏽👍 ❤️ 👩‍🚀!", "fun 👍🏽 👍 ❤️ 👩‍🚀 !"),
        (" \t\n ", ""),
    ],
)
def test_raw_text_is_cut_into_words(text, tokens):
    assert WORD.tokenize(text) == tokens.split()


@pytest.mark.parametrize(
    "text",
    [
        "if you 've ever entertained the notion , it 's not so bad .",
        "they presume their audience wo n't sit still -- `` however '' -lrb- entertainingly presented -rrb- ...",
        "mr. spielberg 's e.t. vs. the u.s. in the '70s , j. k. r. and \\/ or writer\\/director 9\\/11 !?",
        "a k-19 for 'em all : get 2,500 \\*\\*\\* at feardotcom.com ; can 't see an e.t et al. there",
    ],
)
def test_text_in_tokens_is_left_as_it_is(text):
    assert WORD.tokenize(text) == text.split()


def test_raw_text_and_its_treebank_form_give_the_same_tokens():
    assert WORD.tokenize("It isn't bad, it's great!") == WORD.tokenize("it is n't bad , it 's great !")


PLAIN = st.text(st.sampled_from("aBz059 .,-'\"!?:;/\\*+&@#$%()`~=_é…’你かा\n"))


@given(PLAIN | st.text())
@settings(deadline=None, max_examples=500)
def test_tokens_lose_nothing_but_blanks_and_are_never_empty(text):
    exact = Tokenizer("word", lowercase=False).tokenize(text)
    assert all(exact)
    assert not any(part.isspace() for token in exact for part in token)
    kept = "".join(unicodedata.normalize("NFC", text).split())
    assert "".join(exact).replace("'", "’") == kept.replace("'", "’")


@given(PLAIN)
@settings(deadline=None, max_examples=500)
def test_tokens_are_tokenized_to_themselves(text):
    tokens = WORD.tokenize(text)
    assert WORD.tokenize(" ".join(tokens)) == tokens


@pytest.mark.parametrize("part", ["+.", "a.", "'s", "a@", "www.", "-lrb", "\\*", "n't", "1,", "é’", "👍\u200d", "?-"])
def test_time_grows_with_the_length_of_the_text(part):
    start = time.perf_counter()
    WORD.tokenize(part * 20_000)
    assert time.perf_counter() - start < 5  # 0.02 s in the mean; a quadratic pattern takes minutes


def test_characters_are_tokens_with_single_blanks():
    assert Tokenizer("char").tokenize(" De \t la\nCruz") == list("De la Cruz")
    assert Tokenizer("char", lowercase=True).tokenize("Ab") == ["a", "b"]
    assert Tokenizer("char").tokenize("e\u0301") == ["é"]


def test_case_is_dropped_from_words_only_unless_said():
    assert (Tokenizer("word").lowercase, Tokenizer("char").lowercase) == (True, False)
    assert Tokenizer("word", lowercase=False).tokenize("So It is") == ["So", "It", "is"]


@pytest.mark.parametrize(
    ("texts", "unit"),
    [
        (["a moving film", "dull", "not so good"], "word"),
        (["Khoury", "De luca", "Nahas", "Abe"], "char"),
        (["房间很大 早餐不错 下次 还来", "服务 一般 不 推荐", "good 酒店位置很方便"], "char"),
        (["カラオケ大好き", "東京"], "char"),
        (["ห้องพักสะอาด บริการดี มาก", "ไม่ชอบ เลย"], "char"),
        (["방이 아주 넓어요", "아침 식사가 좋아요"], "word"),
        (["I live in 北京", "we like 东京 a lot"], "word"),
        ([], "word"),
    ],
    ids=["english", "surnames", "chinese with blanks", "japanese", "thai", "korean", "mixed", "nothing"],
)
def test_auto_decides_on_the_texts(texts, unit):
    resolved = Tokenizer().resolve(iter(texts))
    assert resolved == Tokenizer(unit)
    assert resolved.to_dict()["unit"] == unit


def test_what_is_decided_or_said_stays():
    assert Tokenizer("word").resolve(["房间"]).unit == "word"
    assert Tokenizer("auto", lowercase=True).resolve(["Khoury"]) == Tokenizer("char", lowercase=True)


def test_an_undecided_tokenizer_is_not_used_or_saved():
    with pytest.raises(NotFittedError, match="call resolve"):
        Tokenizer().tokenize("a b")
    with pytest.raises(NotFittedError, match="call resolve"):
        Tokenizer().to_dict()


def test_an_unknown_unit_is_said():
    with pytest.raises(ConfigError, match=r"unknown unit 'words'\. Did you mean 'word'\?"):
        Tokenizer("words")


@pytest.mark.parametrize("unit", ["word", "char"])
@pytest.mark.parametrize("lowercase", [True, False])
def test_a_saved_tokenizer_comes_back(unit, lowercase):
    tokenizer = Tokenizer(unit, lowercase)
    assert Tokenizer.from_dict(tokenizer.to_dict()) == tokenizer


@pytest.mark.parametrize(
    "content",
    [None, [], {}, {"unit": "word"}, {"unit": "auto", "lowercase": True}, {"unit": ["word"], "lowercase": True},
     {"unit": "word", "lowercase": 1}, {"unit": "word", "lowercase": True, "more": 1}],
)  # fmt: skip
def test_something_else_is_not_a_saved_tokenizer(content):
    with pytest.raises(CheckpointError, match="this is not a saved tokenizer"):
        Tokenizer.from_dict(content)
