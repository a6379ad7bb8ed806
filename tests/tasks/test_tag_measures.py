"""Scores of taggers, counted here once more by other means; pages that show tags and nothing else."""

import math
import random
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from carousel.errors import ConfigError, DataError, ShapeError
from carousel.tasks.intervals import bootstrap
from carousel.tasks.tag.measures import TagEvaluation, conlleval
from carousel.tasks.tag.spans_html import SHOWN, ShownSentence, spans_page, write_spans_html


def state_machine(truth, answers):
    """conlleval as its description has it: both columns are read token by token, and a chunk counts where both end at once.

    Sentences are parted by O. It gives correct, found and true chunks by type, and how many tags are right.
    """

    def ends(before, now):
        return before[0] != "O" and (now[0] in "BO" or before[1] != now[1])

    def starts(before, now):
        return now[0] != "O" and (before[0] == "O" or now[0] == "B" or before[1] != now[1])

    correct, found, true, right, tokens = {}, {}, {}, 0, 0
    inside = False
    last = last_guess = ("O", "")
    rows = [pair for a, b in zip(truth, answers, strict=True) for pair in [*zip(a, b, strict=True), None]]
    for row in rows:
        now, guess = [(tag[0], tag[2:]) for tag in row] if row else [("O", ""), ("O", "")]
        if inside:
            if ends(last, now) and ends(last_guess, guess):
                correct[last[1]] = correct.get(last[1], 0) + 1
                inside = False
            elif ends(last, now) != ends(last_guess, guess) or now[1] != guess[1]:
                inside = False
        if starts(last, now):
            true[now[1]] = true.get(now[1], 0) + 1
            if starts(last_guess, guess) and now[1] == guess[1]:
                inside = True
        if starts(last_guess, guess):
            found[guess[1]] = found.get(guess[1], 0) + 1
        if row:
            tokens, right = tokens + 1, right + (row[0] == row[1])
        last, last_guess = now, guess
    return correct, found, true, right, tokens


def random_tags(dice, lengths, like=None):
    tags = ["O", "O", "B-X", "I-X", "B-Y", "I-Y"]
    if like is None:
        return [[dice.choice(tags) for _ in range(n)] for n in lengths]
    return [[tag if dice.random() < 0.75 else dice.choice(tags) for tag in row] for row in like]


def words_of(rows):
    return [["w"] * len(row) for row in rows]


@pytest.mark.parametrize("number", range(5))
def test_spans_are_counted_as_conlleval_counts(number):
    dice = random.Random(number)
    for _ in range(40):
        check_counts(dice)


def check_counts(dice):
    truth = random_tags(dice, [dice.randrange(9) for _ in range(dice.randrange(1, 6))] + [4])
    answers = random_tags(dice, None, truth)
    correct, found, true, right, tokens = state_machine(truth, answers)
    one = TagEvaluation(words_of(truth), truth, answers, scheme="bio")
    scores, c, f, t = one.scores(), sum(correct.values()), sum(found.values()), sum(true.values())
    precision, recall = c / max(1, f), c / max(1, t)
    assert scores["precision"] == pytest.approx(precision)
    assert scores["recall"] == pytest.approx(recall)
    assert scores["f1"] == pytest.approx(2 * precision * recall / (precision + recall) if c else 0.0)
    assert (scores["accuracy"], scores["count"]) == (pytest.approx(right / tokens), tokens)
    for row in one.table():
        kind = row["label"]
        assert (row["support"], row["answered"]) == (true.get(kind, 0), found.get(kind, 0))
        assert (row["recall"] or 0) * row["support"] == pytest.approx(correct.get(kind, 0))
        assert (row["precision"] or 0) * row["answered"] == pytest.approx(correct.get(kind, 0))
    assert sum(row["count"] for row in one.confusions()) >= max(t, f) - c
    assert f"{t} phrases; found: {f} phrases; correct: {c}." in conlleval(one)


def test_known_and_unknown_words_apart():
    one = TagEvaluation(
        [["the", "film", "xylo"], ["xylo", "the"], []],
        [["D", "N", "N"], ["N", "D"], []],
        [["D", "V", "N"], ["X", "D"], []],
        known={"the", "film"},
    )
    scores = one.scores()
    assert scores["accuracy"] == pytest.approx(3 / 5)
    assert scores["known_accuracy"] == pytest.approx(2 / 3)
    assert scores["unknown_accuracy"] == pytest.approx(1 / 2)
    assert scores["sentence_accuracy"] == pytest.approx(1 / 3)
    assert "f1" not in scores
    rows = {row["label"]: row for row in one.table()}
    assert [row["label"] for row in one.table()] == ["N", "D", "V", "X"]
    assert rows["N"] == {"label": "N", "precision": 1.0, "recall": 1 / 3, "f1": 0.5, "support": 3, "answered": 1}
    assert (rows["X"]["recall"], rows["X"]["precision"], rows["X"]["f1"]) == (None, 0.0, 0.0)
    assert one.confusions() == [
        {"true": "N", "answered": "V", "count": 1},
        {"true": "N", "answered": "X", "count": 1},
    ]
    assert len(one.confusions(1)) == 1
    nothing_new = TagEvaluation([["the"]], [["D"]], [["D"]], known={"the"})
    assert "unknown_accuracy" not in nothing_new.scores()


def test_segmentation():
    text, known = "中共中央总书记江泽民", {"中共", "中央", "总书记"}
    truth = list("BMMEBMESBE")  # 中共中央 总书记 江 泽民
    answers = list("BEBEBMESBE")  # 中共 中央 总书记 江 泽民
    one = TagEvaluation([list(text)], [truth], [answers], scheme="bmes", known=known, segmentation=True)
    scores = one.scores()
    assert scores["precision"] == pytest.approx(3 / 5)
    assert scores["recall"] == pytest.approx(3 / 4)
    assert scores["f1"] == pytest.approx(2 * 3 / 9)
    assert scores["oov_recall"] == pytest.approx(2 / 3)  # 中共中央 江 泽民 are new, the last two are found
    assert "known_accuracy" not in scores
    all_known = TagEvaluation([list("江")], [["S"]], [["S"]], scheme="bmes", known={"江"}, segmentation=True)
    assert "oov_recall" not in all_known.scores()


def test_what_spans_are_taken_for():
    one = TagEvaluation(
        [["a"] * 6],
        [["B-X", "I-X", "O", "B-X", "O", "B-Y"]],
        [["B-Y", "I-Y", "O", "O", "B-X", "B-Y"]],
        scheme="bio",
    )
    assert {(row["true"], row["answered"]): row["count"] for row in one.confusions()} == {
        ("X", "Y"): 1,
        ("X", "(missed)"): 1,
        ("(invented)", "X"): 1,
    }


def test_intervals_draw_sentences():
    dice = random.Random(3)
    truth = random_tags(dice, [6] * 300)
    answers = random_tags(dice, None, truth)
    one = TagEvaluation(words_of(truth), truth, answers, scheme="bio", known={"w"})
    found = one.intervals(seed=1)
    assert set(found) == set(one.scores()) - {"count"}
    for name, interval in found.items():
        assert interval.value == pytest.approx(one.scores()[name])
        assert interval.low < interval.value < interval.high
    # The deviation of a share of independent tokens, nearly: 1.96 times that on each side.
    p = one.scores()["accuracy"]
    half = 1.96 * math.sqrt(p * (1 - p) / 1800)
    assert found["accuracy"].high - found["accuracy"].low == pytest.approx(2 * half, rel=0.3)
    assert bootstrap(one, seed=1) == found
    rows = one.statistics(np.array([0, 0, 5]))
    np.testing.assert_array_equal(rows, one.statistics(slice(None))[[0, 0, 5]])
    assert one.to_dict()["scores"]["count"] == 1800


def test_what_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match="answers does not fit the words, at sentence 1"):
        TagEvaluation([["a"], ["b"]], [["X"], ["X"]], [["X"], ["X", "Y"]])
    with pytest.raises(ShapeError, match="truth"):
        TagEvaluation([["a"], ["b"]], [["X"]], [["X"], ["X"]])
    with pytest.raises(DataError, match="no tokens"):
        TagEvaluation([[]], [[]], [[]])
    with pytest.raises(DataError, match="not a tag"):
        TagEvaluation([["a"]], [["NN"]], [["O"]], scheme="bio").scores()
    with pytest.raises(ConfigError, match="segmentation"):
        TagEvaluation([["a"]], [["S"]], [["S"]], segmentation=True)
    with pytest.raises(ConfigError, match="unknown scheme"):
        TagEvaluation([["a"]], [["O"]], [["O"]], scheme="bi").scores()


class Text(HTMLParser):
    """Elements with their attributes, and the text."""

    def __init__(self):
        super().__init__()
        self.elements, self.text = [], ""

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def parsed(page):
    reader = Text()
    reader.feed(page.decode())
    return reader


def test_a_page_of_spans():
    shown = ShownSentence(
        ["Peter", "Blackburn", "in", "Rome"],
        ["B-PER", "I-PER", "O", "B-ORG"],
        [0.9, 0.8, 1.0, 0.5],
        ["B-PER", "I-PER", "O", "B-LOC"],
        "news.txt:3",
    )
    found = parsed(spans_page([shown], title="News", scheme="bio"))
    hints = [attributes.get("title") for tag, attributes in found.elements if tag == "bdi"]
    assert hints == ["PER, 0.90 0.80", "1.00", "ORG, 0.50, true: B-LOC"]
    assert "Peter Blackburn" in found.text
    wrong = [attributes for tag, attributes in found.elements if tag == "bdi" and "w" in attributes.get("class", "").split()]
    assert [attributes["title"] for attributes in wrong] == ["ORG, 0.50, true: B-LOC"]
    assert ("p", {"dir": "auto", "title": "news.txt:3"}) in found.elements
    missed = parsed(spans_page([ShownSentence(["Rome"], ["O"], truth=["B-LOC"])], scheme="bio"))
    assert ("bdi", {"class": "w", "title": "true: B-LOC"}) in missed.elements


def test_a_page_of_plain_tags_and_of_characters():
    page = parsed(spans_page([ShownSentence(["the", "film"], ["DT", "NN"])]))
    assert [a["title"] for tag, a in page.elements if tag == "bdi"] == ["DT", "NN"]
    assert "theDT filmNN" in page.text
    page = parsed(spans_page([ShownSentence(list("我在北京"), list("SSBE"), [1.0] * 4)], scheme="bmes", joined=True))
    assert "我在北京" in page.text
    assert sum(tag == "bdi" for tag, _ in page.elements) == 3


def test_nothing_in_the_text_becomes_markup(tmp_path):
    evil = [
        '<script>alert("1")</script>',
        "</p><img src=x onerror=alert(1)>",
        '" onmouseover="x',
        "a\x00\x1b\ud800",
        "&lt;b&gt;",
    ]
    tags = ["B-<b>", "I-<b>", 'B-"x', "O", "B-&amp;"]
    write_spans_html(tmp_path / "a.html", [ShownSentence(evil, tags, None, tags, '"><script>')], title="<h1>&", scheme="bio")
    raw = (tmp_path / "a.html").read_bytes()
    page = parsed(raw)
    allowed = {"html", "head", "meta", "title", "style", "body", "h1", "div", "span", "small", "p", "bdi"}
    assert {tag for tag, _ in page.elements} == allowed
    assert {name for _, attributes in page.elements for name in attributes} <= {
        *("lang", "charset", "http-equiv", "content", "name", "class", "dir", "title"),
    }
    for word in evil[:3]:
        assert word in page.text
    assert not re.search(rb"https?:|url\(|@import", raw)
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_style_is_the_one_that_the_policy_allows():
    import base64
    import hashlib

    raw = spans_page([ShownSentence(["a"], ["X"])]).decode()
    style = re.search(r"<style>(.*?)</style>", raw, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in raw


def test_long_pages_end_and_misfits_are_refused():
    page = parsed(spans_page(ShownSentence(["a"], ["X"]) for _ in range(SHOWN + 3)))
    assert "3 more sentences are not shown." in page.text
    with pytest.raises(ShapeError, match="2 tags"):
        spans_page([ShownSentence(["a"], ["X", "Y"])])
    with pytest.raises(DataError, match="not a tag"):
        spans_page([ShownSentence(["a"], ["NN"])], scheme="bio")
