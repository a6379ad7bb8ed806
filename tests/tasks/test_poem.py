"""Poems as data: what is read, which forms and rhymes are learned, how a poem becomes tokens."""

import gzip
import json

import numpy as np
import pytest

from carousel.data.token_stream import IGNORED
from carousel.errors import CheckpointError, ConfigError, DataError
from carousel.tasks.poem import FORMS, Form, Poem, keeps_form, read_poems, score_poems
from carousel.tasks.poem.checking import chance_of_rhyme
from carousel.tasks.poem.forms import choose_form, find_tune, learn_tunes
from carousel.tasks.poem.inputs import PoemBatches, PoemInputs
from carousel.tasks.poem.marks import is_mark, line_mark, marked, nearest
from carousel.tasks.poem.rhymes import RhymeTable
from carousel.tasks.poem.splitting import hold_out_poems, without_titles
from carousel.tasks.poem.wishes import Wish, plan

SPRING = "春眠不覺曉，處處聞啼鳥。夜來風雨聲，花落知多少。"
TOWER = "白日依山盡，黃河入海流。欲窮千里目，更上一層樓。"
# A tune of three lines, the first two of which rhyme, twice as usual and once otherwise.
TUNED = [
    Poem.parse("一江水。兩山鬼。月明中。", tune="別名・小令"),
    Poem.parse("千里悲。萬家歸。夜沈沈。", tune="小令"),
    Poem.parse("千里，萬家歸。", tune="小令"),
]


def learned(poems, **options):
    return PoemInputs.from_poems(poems, **{"min_count": 1, "max_vocab": None, "title_length": 4, "max_lines": 9} | options)


# --- files ------------------------------------------------------------------------------------------------------------


def test_files_are_read(tmp_path):
    records = [
        {"author": "孟浩然", "title": "春曉", "paragraphs": [SPRING[:12], SPRING[12:]]},
        {"rhythmic": "小令", "paragraphs": "一江水；兩山雲！月、明中"},
        {"title": "lost", "paragraphs": ["春眠□覺曉，"]},
        {"title": None, "paragraphs": []},
    ]
    path = tmp_path / "poems.jsonl.gz"
    path.write_bytes(gzip.compress("\n\n".join(json.dumps(record) for record in records).encode()))
    found = read_poems(path)
    assert [poem.lengths for poem in found.poems] == [(5, 5, 5, 5), (3, 3, 1, 2)]
    assert found.poems[0].title == "春曉"
    assert (found.poems[1].tune, found.poems[1].stops) == ("小令", "，。、。")
    assert found.left_out == 2
    assert read_poems([found.poems[0].to_dict()["paragraphs"][0], found.poems[1]]).poems[0].text == SPRING[:12]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"poems.jsonl:2: the line is not valid JSON"),
        ("[1]", r":2: the line is not a JSON object"),
        ('{"paragraphs": 3}', r":2: key 'paragraphs' is no list of texts"),
        ('{"text": "春"}', r":2: key 'paragraphs' is no list of texts"),
        ('{"paragraphs": ["春"], "title": 3}', r":2: key 'title' is no text"),
    ],
)
def test_bad_records_name_their_line(tmp_path, line, message):
    path = tmp_path / "poems.jsonl"
    path.write_text('{"paragraphs": ["春。"]}\n' + line)
    with pytest.raises(DataError, match=message):
        read_poems(path)


def test_a_file_without_poems_is_refused(tmp_path):
    path = tmp_path / "poems.jsonl"
    path.write_text('{"paragraphs": ["spring"]}')
    with pytest.raises(DataError, match=r"there is no poem.\n.*1 records"):
        read_poems(path)
    with pytest.raises(DataError, match="item 0 of the list is no poem"):
        read_poems([3])


@pytest.mark.parametrize("text", ["", "。，", "spring。", "春1。", "春眠\ue000。", "<7>"])
def test_what_is_no_poem(text):
    with pytest.raises(DataError):
        Poem.parse(text)


# --- forms ------------------------------------------------------------------------------------------------------------


def test_forms_by_name_and_by_lengths():
    assert choose_form("五律") is choose_form("WULV") is FORMS["wulü"]
    assert choose_form("7, 7,7,7") is FORMS["qijue"]
    assert choose_form([5, 5, 7]) == Form((5, 5, 7), "，。。", "-aa")
    assert choose_form("qijue", "-a-a").scheme == "-a-a"
    assert Form.of([3] * 6, "ab-ab-").pairs == ((0, 3), (1, 4))


@pytest.mark.parametrize("form", ["sonnet", "", "5,,5", "0", "41", "1,-1", [], [5.0], [True], ["5"], "5," * 200 + "5"])
def test_impossible_forms_are_refused(form):
    with pytest.raises(ConfigError):
        choose_form(form)


def test_impossible_schemes_are_refused():
    for scheme in ("aa", "aaA", "a b", "aaaa"):
        with pytest.raises(ConfigError, match="which lines rhyme"):
            choose_form([5, 5, 5], scheme)


def test_the_commonest_pattern_of_a_tune_is_learned_with_its_rhymes():
    rhymes = RhymeTable.of({char for poem in TUNED for line in poem.lines for char in line})
    tunes = learn_tunes(TUNED, rhymes)
    assert list(tunes) == ["小令", "別名"]
    assert tunes["小令"] == Form((3, 3, 3), "。。。", "aa-", "小令")
    assert find_tune(tunes, "某・小令") is tunes["小令"]
    with pytest.raises(ConfigError, match="one of 2, such as 小令"):
        find_tune(tunes, "小今")
    with pytest.raises(ConfigError, match="there was no ci in the training data"):
        find_tune({}, "小令")


def test_rhymes():
    rhymes = RhymeTable.of("流樓目曉鳥少頭□a")
    assert rhymes.match("流", "樓")
    assert not rhymes.match("流", "目")
    assert not rhymes.match("頭", "少")
    assert rhymes.groups("少") == {"豪仄"}  # both readings are oblique
    assert not rhymes.groups("a")
    assert not rhymes.match("a", "a")


# --- what is wanted ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "lengths", "begun"),
    [
        (Wish(), (7, 7, 7, 7), ("", "", "", "")),
        (Wish(acrostic="春夏秋冬"), (7, 7, 7, 7), ("春", "夏", "秋", "冬")),
        (Wish(acrostic="春 夏\n秋"), (7, 7, 7), ("春", "夏", "秋")),
        (Wish(first="白日依山盡"), (5, 5, 5, 5), ("白日依山盡", "", "", "")),
        (Wish(first="白日依山盡，黃河入海流。", form="wulü"), (5,) * 8, ("白日依山盡", "黃河入海流", *[""] * 6)),
        (Wish(first="白日依山盡", acrostic="白黃欲更"), (5, 5, 5, 5), ("白日依山盡", "黃", "欲", "更")),
        (Wish(form="5,5,7", acrostic="春"), (5, 5, 7), ("春", "", "")),
        (Wish(tune="小令", first="一江水"), (3, 3, 3), ("一江水", "", "")),
    ],
    ids=str,
)
def test_what_follows_from_a_wish(wish, lengths, begun):
    found = plan(wish, {"小令": Form((3, 3, 3), "。。。", "aa-", "小令")})
    assert (found.form.lengths, found.begun) == (lengths, begun)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Wish(acrostic="spring"), "acrostic must be Chinese characters"),
        (Wish(acrostic="春夏秋冬春", form="wujue"), "has 4 lines.\n  got:      an acrostic of 5 characters"),
        (Wish(first="白日依山盡", form="qijue"), "line 1 of the form qijue has 7 characters"),
        (Wish(first="白日依山盡", acrostic="黃"), "line 1 does not begin as the acrostic has it"),
        (Wish(first="白日" * 30), "too long"),
        (Wish(first="sunset"), "first: a line of a poem"),
        (Wish(tune="小令", form="qijue"), "leave one out"),
        (Wish(tune="none"), "the name of a tune"),
        (Wish(title=3), "title must be a text"),
    ],
    ids=str,
)
def test_contradictions_are_refused(wish, message):
    with pytest.raises(ConfigError, match=message):
        plan(wish, {"小令": Form((3, 3, 3), "。。。", "aa-", "小令")})


def test_titles_can_be_shown():
    assert plan(Wish(title="春\n\x1b[1m曉 \ud800" + "x" * 500), {}).title.startswith("春 [1m曉 ?xxx")
    assert len(plan(Wish(title="春" * 10_000), {}).title) == 200


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_a_poem_as_one_text():
    poem = Poem.parse(SPRING, title="春曉 (1)")
    heading, lines = marked(poem, title_length=4)
    assert "".join(char for char in heading if not is_mark(char)) == "春曉"
    assert "".join("|" if is_mark(char) else char for char in lines) == "|春眠不覺曉|處處聞啼鳥|夜來風雨聲|花落知多少"
    signs = [char for char in lines if is_mark(char)]
    assert [signs.index(sign) for sign in signs] == [0, 1, 0, 3]  # commas, a full stop, and the last
    assert marked(Poem.parse(SPRING), title_length=4)[0] == heading[0]
    assert marked(poem, title_length=4, max_lines=2)[1] == lines[:12]


def test_the_nearest_sign_stands_for_one_that_was_never_seen():
    known = [line_mark(5, "，", last=False), line_mark(5, "。", last=False), line_mark(7, "。", last=False), "\ue000", "春"]
    assert nearest(line_mark(4, "。", last=False), known) == known[1]
    assert nearest(line_mark(9, "，", last=False), known) == known[2]
    assert nearest(line_mark(9, "，", last=False), ["春"]) is None


def test_only_characters_of_lines_are_predicted():
    poems = [Poem.parse(SPRING, title="春曉"), Poem.parse(TOWER, title="登鸛雀樓")]
    inputs = learned(poems)
    rows = [inputs.row(poem) for poem in poems]
    assert ["".join(inputs.tokens[n] for n in row.numbers[row.counted]) for row in rows] == [
        "".join(poem.lines) for poem in poems
    ]
    (window,) = PoemBatches(rows, start=inputs.end, batch_size=2, shuffle=False)
    assert window.token_count == 40
    for row, before, targets in zip(
        sorted(rows, key=lambda row: -len(row.numbers)), window.inputs, window.targets, strict=True
    ):
        T = len(row.numbers)
        assert before[:T].tolist() == [inputs.end, *row.numbers[:-1]]
        assert targets[:T].tolist() == np.where(row.counted, row.numbers, IGNORED).tolist()
        assert (targets[T:] == IGNORED).all()


def test_every_poem_is_read_once_an_epoch_in_another_order():
    poems = [Poem.parse(char * (3 + place % 4)) for place, char in enumerate("一二三四五六七八九十")]
    inputs = learned(poems)
    batches = PoemBatches([inputs.row(poem) for poem in poems], start=inputs.end, batch_size=3, shuffle=True, seed=1)
    seen = []
    for epoch in (0, 1):
        batches.set_epoch(epoch)
        seen.append([tuple(t for t in row.tolist() if t != IGNORED) for window in batches for row in window.targets])
    assert seen[0] != seen[1]
    assert sorted(seen[0]) == sorted(seen[1]) == sorted(tuple(inputs.numbers[c] for c in poem.lines[0]) for poem in poems)


def test_parts_of_the_data_depend_on_the_seed_alone():
    poems = [Poem.parse(SPRING, title=str(n)) for n in range(2)] + [
        Poem.parse(char, title="題") for char in "一二三四五六七八九"
    ]
    rest, held = hold_out_poems(poems, seed=1)
    assert (rest, held) == hold_out_poems(poems, seed=1)
    assert sorted(map(str, rest + held)) == sorted(map(str, poems))
    assert not {poem.text for poem in rest} & {poem.text for poem in held}
    with pytest.raises(DataError, match="too few poems"):
        hold_out_poems(poems[:2], seed=1)
    assert [bool(poem.title) for poem in without_titles(poems, 1.0, seed=1)] == [False] * 11
    assert without_titles(poems, 0.0, seed=1) == poems


def test_what_is_learned_is_saved_and_checked(tmp_path):
    inputs = learned([*TUNED, Poem.parse(SPRING, title="春曉")])
    inputs.write(tmp_path)
    found = PoemInputs.recall(tmp_path)
    assert (found.tokens, found.tunes, found.rhymes.members) == (inputs.tokens, inputs.tunes, inputs.rhymes.members)
    good = json.loads((tmp_path / "forms.json").read_text())
    form = good["tunes"]["小令"]
    for bad in (
        [], {}, good | {"more": 1}, good | {"title_length": -1}, good | {"title_length": True}, good | {"tunes": []},
        good | {"tunes": {"小令": {}}}, good | {"tunes": {"小令": form | {"lengths": [10**9] * 3}}},
        good | {"tunes": {"小令": form | {"stops": "abc"}}}, good | {"tunes": {"小令": form | {"scheme": 3}}},
        good | {"tunes": {"小令": form | {"lengths": [[3], 3, 3]}}},
    ):  # fmt: skip
        (tmp_path / "forms.json").write_text(json.dumps(bad))
        with pytest.raises(CheckpointError, match=r"forms\.json"):
            PoemInputs.recall(tmp_path)
    (tmp_path / "forms.json").write_text(json.dumps(good))
    for bad in ([], {"rhymes": []}, {"rhymes": {"a": 3}}, {"rhymes": {"a": ""}}, {"rhymes": {"a": "春春"}}):
        (tmp_path / "rhymes.json").write_text(json.dumps(bad))
        with pytest.raises(CheckpointError, match=r"rhymes\.json"):
            PoemInputs.recall(tmp_path)


# --- measures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "春眠不覺曉，處處聞啼鳥",
        "春眠不覺曉處處聞啼鳥。",
        "春眠不覺曉，處處聞啼。",
        "春眠不覺曉，處處聞啼a。",
        "春眠不覺曉，處處聞啼鳥。春。",
        "春眠不覺\ue000，處處聞啼鳥。",
        "春眠不覺曉，處處聞啼\ufffd。",
        "春眠不覺曉，。",
        "",
    ],
)
def test_the_checker_sees_what_is_wrong(text):
    assert keeps_form("春眠不覺曉，處處\n聞啼鳥。", [5, 5])
    assert not keeps_form(text, [5, 5])


def test_measures_of_poems():
    poems = [Poem.parse(SPRING), Poem.parse(TOWER), Poem.parse(SPRING[:12])]
    forms = [FORMS["wujue"]] * 3
    found = score_poems(poems, forms, RhymeTable.of(SPRING + TOWER), {"春眠不覺曉"})
    assert found.forms_kept == pytest.approx(2 / 3)
    assert found.rhyming == 1.0
    assert found.copied == pytest.approx(2 / 10)
    assert found.distinct_lines == pytest.approx(8 / 10)
    assert found.distinct_2 == pytest.approx(32 / 40)
    broken = [Poem.parse(SPRING.replace("少", "春")), Poem.parse(TOWER)]
    assert score_poems(broken, forms[:2], RhymeTable.of(SPRING + TOWER)).rhyming == 0.5
    assert chance_of_rhyme(list(zip(poems[:2], forms[:2], strict=True)), RhymeTable.of(SPRING + TOWER)) == 0.0
