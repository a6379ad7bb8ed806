"""Key terms: reading documents, measures, counting, and probabilities of spans, each against something independent."""

import gzip
import itertools
import json
import random

import numpy as np
import pytest
import torch

from carousel.errors import CheckpointError, ConfigError, DataError
from carousel.structured import CRF, bioes_constraints
from carousel.tasks.keyterms.counting import DocumentCounts, candidates, textrank_terms, tfidf_terms, word_ranks
from carousel.tasks.keyterms.documents import Document, document_of, find_terms, open_documents, term_text
from carousel.tasks.keyterms.features import STATISTICS, WordStatistics
from carousel.tasks.keyterms.measures import RankedTerm, best_threshold, exact_match, rank
from carousel.tasks.keyterms.options import KeyTermsOptions
from carousel.tasks.keyterms.spans import span_probabilities, step_probabilities, tagged_terms
from carousel.tasks.keyterms.vocabulary import places_of, vocabulary_terms

OPTIONS = KeyTermsOptions()


def read(path, **options):
    return open_documents(path, KeyTermsOptions(**options), labelled=True)


# --- documents --------------------------------------------------------------------------------------------------------


def test_columns_are_read_with_all_types_of_spans_and_terms_once(tmp_path):
    file = tmp_path / "a.txt.gz"
    text = "\ufeffDeep\tB-Task\r\nNets\tI-Task\r\nare\tO\r\ndeep\tB-Process\r\nnets\tI-Process\r\n\r\nEnd\tO\r\n"
    file.write_bytes(gzip.compress(text.encode()))
    first, second = read(file)
    assert first.words == ("Deep", "Nets", "are", "deep", "nets")
    assert first.terms == (("deep", "nets"),)
    assert first.spans == ((0, 2), (3, 5))
    assert (second.terms, second.line) == ((), 7)


def test_tags_that_do_not_fit_are_read_as_conlleval_does(tmp_path):
    (tmp_path / "a.txt").write_text("a\tI-KEY\nb\tI-KEY\nc\tO\nd\tB-KEY\ne\tB-KEY\n")
    assert read(tmp_path / "a.txt")[0].spans == ((0, 2), (3, 4), (4, 5))


@pytest.mark.parametrize("tag", ["X-KEY", "KEY", "B-"])
def test_a_tag_that_is_none_is_refused_with_its_file_and_line(tmp_path, tag):
    (tmp_path / "a.txt").write_text(f"x\tO\n\na\tO\nb\t{tag}\n")
    with pytest.raises(DataError, match=r"a\.txt:3: "):
        read(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", json.dumps({"text": "Deep nets learn.", "keyterms": ["Deep Nets", "absent one"]}) + "\n"),
        ("a.tsv", "keyterms\ttext\nDeep nets; absent one\tDeep nets learn.\n"),
        ("a.csv", 'text,keyterms\nDeep nets learn.,"deep nets;absent one"\n'),
    ],
)
def test_tables_hold_texts_and_lists_of_terms(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    (document,) = read(tmp_path / name)
    assert document.words == ("Deep", "nets", "learn", ".")
    assert document.terms == (("deep", "nets"), ("absent", "one"))
    assert document.spans == ((0, 2),)


def test_a_table_without_terms_is_refused_for_training_and_read_for_answers(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "Deep nets."}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:1: "):
        read(tmp_path / "a.jsonl")
    (found,) = open_documents(tmp_path / "a.jsonl", OPTIONS, labelled=False)
    assert found.terms is None


def test_raw_lines_are_documents(tmp_path):
    (tmp_path / "a.txt").write_text("Deep nets, at last.\nOne more\n")
    found = open_documents(tmp_path / "a.txt", OPTIONS, labelled=False)
    assert [document.words for document in found] == [("Deep", "nets", ",", "at", "last", "."), ("One", "more")]
    with pytest.raises(DataError, match=r"a\.txt:2: "):
        read(tmp_path / "a.txt")


@pytest.mark.parametrize(
    "items", [[3], [("text", 3)], [("text", [3])], [(["a", 1], ["b"])], ["no terms"], [], [("text", "one text")]]
)
def test_lists_that_hold_something_else_are_refused(items):
    with pytest.raises(DataError):
        open_documents(items, OPTIONS, labelled=True)


def test_of_several_terms_at_one_place_the_longest_is_found():
    words = ["a", "b", "c", "a", "b", "a"]
    assert find_terms(words, [("a",), ("a", "b"), ("a", "b", "c"), ()]) == ((0, 3), (3, 5), (5, 6))


def test_chinese_terms_have_no_blanks():
    assert term_text(("rnn", "模", "型")) == "rnn 模型"


# --- measures ---------------------------------------------------------------------------------------------------------


def random_answers(seed):
    draw = random.Random(seed)
    names = [(letter,) for letter in "abcdefghijklmnopqrstuvw"]
    answers = [
        rank([RankedTerm(term, round(draw.random(), 1)) for term in draw.sample(names, draw.randint(0, 15))]) for _ in range(6)
    ]
    return answers, [draw.sample(names, draw.randint(0, 5)) for _ in range(6)]


def plain_f1(chosen, truth):
    right = sum(sum(term in true for term in terms) for terms, true in zip(chosen, truth, strict=True))
    precision = right / max(1, sum(map(len, chosen)))
    recall = right / max(1, sum(map(len, truth)))
    return precision, recall, 2 * precision * recall / (precision + recall) if right else 0.0


@pytest.mark.parametrize("seed", range(8))
def test_measures_and_threshold_are_those_of_plain_counting(seed):
    answers, truth = random_answers(seed)
    best = best_threshold(answers, truth)
    for threshold in (best, 0.35, 0.75):
        scores = exact_match(answers, truth, threshold)
        chosen = [[one.term for one in ranked if one.score >= threshold] for ranked in answers]
        assert (scores["precision"], scores["recall"], scores["f1"]) == pytest.approx(plain_f1(chosen, truth))
    for cut in (5, 10):
        assert scores[f"f1_at_{cut}"] == pytest.approx(plain_f1([[o.term for o in r[:cut]] for r in answers], truth)[2])
    every = [exact_match(answers, truth, at / 20 + 0.01)["f1"] for at in range(22)]
    assert exact_match(answers, truth, best)["f1"] == pytest.approx(max(every))
    assert best > 0


def test_a_term_counts_once_however_often_it_stands_in_the_document():
    (document,) = open_documents([(["a", "x", "a"], ["a", "A"])], OPTIONS, labelled=True)
    assert document.spans == ((0, 1), (2, 3))
    scores = exact_match([[RankedTerm(("a",), 1.0, document.spans)]], [document.terms], 0.5)
    assert (scores["precision"], scores["recall"], scores["count"]) == (1.0, 1.0, 1)


def test_nothing_answered_and_nothing_wanted_is_no_division_by_zero():
    assert set(exact_match([[]], [[]], 0.5).values()) == {0.0, 1}
    assert best_threshold([[]], [[("a",)]]) == 0.5


# --- counting ---------------------------------------------------------------------------------------------------------


def test_candidates_end_at_stop_words_and_punctuation_and_are_not_too_long():
    words = ["deep", "neural", "nets", ",", "a", "b-c", "of", "3.5", "gated", "deep", "neural", "nets"]
    assert list(candidates(words, 3)) == [("deep", "neural", "nets"), ("b-c",)]
    assert candidates(words, 4)["gated", "deep", "neural", "nets"] == [(8, 12)]


def test_tfidf_is_the_formula():
    corpus = [document_of(text) for text in ("red cars", "red red trees", "blue birds")]
    counts = DocumentCounts.of(corpus)
    assert (counts.documents, counts.counts["red"]) == (3, 2)
    found = {one.term: one for one in tfidf_terms(document_of("Red apples and red birds"), counts)}
    value = {
        ("red", "apples"): 2 * np.log(4 / 3) + np.log(4 / 1),
        ("red", "birds"): 2 * np.log(4 / 3) + np.log(4 / 2),
    }
    assert found["red", "apples"].score == 1.0
    assert found["red", "birds"].score == pytest.approx(value["red", "birds"] / value["red", "apples"])
    assert found["red", "birds"].places == ((3, 5),)


def test_word_ranks_solve_the_equations_of_pagerank():
    draw = random.Random(3)
    words = [draw.choice(["kappa", "lambda", "sigma", "tau", "phi", "the", "of"]) for _ in range(60)]
    ranks = word_ranks(words)
    kept = [word for word in words if word not in ("the", "of")]
    names = sorted(set(kept))
    weights = np.zeros((len(names), len(names)))
    for a, b in itertools.pairwise(kept):
        if a != b:
            weights[names.index(a), names.index(b)] += 1
            weights[names.index(b), names.index(a)] += 1
    n = len(names)
    expected = np.linalg.solve(np.eye(n) - 0.85 * weights / weights.sum(0), np.full(n, 0.15 / n))
    np.testing.assert_allclose([ranks[name] for name in names], expected, rtol=0, atol=2e-6)


def test_textrank_prefers_what_is_at_the_centre():
    text = "graph ranks of words. graph edges. graph nodes. graph walks. other matters"
    assert textrank_terms(document_of(text))[0].term[0] == "graph"
    assert textrank_terms(document_of("of the . ,")) == tfidf_terms(Document(()), DocumentCounts(0, {})) == []


# --- statistics -------------------------------------------------------------------------------------------------------


def some_documents(count, seed=0):
    draw = random.Random(seed)
    return [
        document_of([draw.choice("abcdefgh") for _ in range(12)], [[draw.choice("abcd")], [draw.choice("ef")]])
        for _ in range(count)
    ]


def test_a_learned_document_is_left_out_of_its_own_counts():
    documents = some_documents(9)
    whole = WordStatistics.learn(documents)
    for at, document in enumerate(documents):
        rest = WordStatistics.learn([*documents[:at], *documents[at + 1 :]])
        assert whole.rows(document, learned=True) == rest.rows(document)
    assert whole.rows(documents[0], learned=True) != whole.rows(documents[0])
    assert {len(row) for row in whole.rows(documents[0])} == {len(STATISTICS)}


def test_statistics_stay_small(tmp_path):
    words = [f"{at:x}{'word'[: at % 5]}" for at in range(40_000)] + ["x" * 41]
    whole = WordStatistics.learn([Document(tuple(words)), Document((*words[-9:], "0"))])
    assert len(whole.counts.counts) == 30_000
    assert whole.counts.counts["0"] == 2
    assert "x" * 41 not in whole.counts.counts
    whole.write(tmp_path)
    assert (tmp_path / "statistics.json").stat().st_size < 1 << 20


def test_statistics_come_back_from_disk_and_damage_is_refused(tmp_path):
    whole = WordStatistics.learn(some_documents(5))
    whole.write(tmp_path)
    assert WordStatistics.recall(tmp_path) == whole
    good = json.loads((tmp_path / "statistics.json").read_text())
    for change in ({"documents": -1}, {"words": ["a", "a"]}, {"counts": [1.5]}, {"in_terms": None}, {"more": 1}):
        (tmp_path / "statistics.json").write_text(json.dumps(good | change))
        with pytest.raises(CheckpointError, match="statistics"):
            WordStatistics.recall(tmp_path)


# --- spans ------------------------------------------------------------------------------------------------------------

LABELS = ["B-KEY", "E-KEY", "I-KEY", "O", "S-KEY"]


@pytest.mark.parametrize("T", [1, 2, 3, 5])
def test_probabilities_of_spans_equal_the_sum_over_all_taggings(T):
    torch.manual_seed(T)
    crf = CRF(5, constraints=bioes_constraints(LABELS)).double()
    torch.nn.init.normal_(crf.transitions)
    scores = torch.randn(1, T, 5, dtype=torch.float64) * 2
    paths = torch.tensor(list(itertools.product(range(5), repeat=T)))
    with torch.no_grad():
        chances = crf.chain(scores.expand(len(paths), T, 5)).log_likelihood(paths).exp().tolist()
    chain = crf.chain(scores)
    expected = dict.fromkeys(((i, j) for i in range(T) for j in range(i + 1, T + 1)), 0.0)
    for path, chance in zip(paths.tolist(), chances, strict=True):
        letters = "".join(LABELS[tag][0] for tag in path)
        for i, j in expected:
            if letters[i:j] == "S" or (j - i > 1 and letters[i:j] == "B" + "I" * (j - i - 2) + "E"):
                expected[i, j] += chance
    marginals, steps = chain.marginals()[0].detach().numpy(), step_probabilities(chain)[0]
    found = {(i, j): chance for i, j, chance in span_probabilities(marginals, steps, LABELS, 5, least=0.0)}
    assert set(found) == set(expected)
    np.testing.assert_allclose([found[span] for span in expected], list(expected.values()), rtol=1e-9, atol=1e-12)
    short = list(span_probabilities(marginals, steps, LABELS, 2, least=0.05))
    assert sorted(short) == sorted((i, j, found[i, j]) for i, j in found if j - i <= 2 and found[i, j] >= 0.05)


def test_of_several_places_of_a_term_the_likeliest_counts_and_padding_does_not():
    scores = torch.full((2, 4, 5), -5.0)
    scores[0, 0, 4] = scores[0, 2, 4] = 5.0  # S at the first and third word
    scores[0, 2, 3] = 5.0
    scores[1] = torch.nan
    scores[1, 0, 3] = 9.0
    scores[1, 0, [0, 1, 2, 4]] = 0.0
    chain = CRF(5).chain(scores, torch.tensor([[True] * 3 + [False], [True] + [False] * 3]))
    first, second = tagged_terms(chain, [Document(("Net", "of", "net")), Document(("of",))], LABELS, 3)
    assert first[0].term == ("net",)
    assert first[0].score > 0.9
    assert first[0].places == ((0, 1), (2, 3))
    assert all(np.isfinite(one.score) and one.score < 0.1 for one in second)


def test_scores_of_a_vocabulary_become_terms_of_the_document():
    terms = [("a",), ("b", "c"), ("d",)]
    document = Document(("x", "B", "C", "A", "a"))
    assert places_of(document, terms) == {("a",): ((3, 4), (4, 5)), ("b", "c"): ((1, 3),)}
    scores = np.array([-1.0, 2.0, 3.0])
    present = vocabulary_terms(document, terms, scores, only_present=True)
    assert [one.term for one in present] == [("b", "c"), ("a",)]
    assert present[0].score == pytest.approx(1 / (1 + np.exp(-2.0)))
    every = vocabulary_terms(document, terms, scores, only_present=False)
    assert [one.term for one in every] == [("d",), ("b", "c"), ("a",)]
    assert every[0].places == ()


def test_impossible_options_are_refused():
    for wrong in ({"method": "tag"}, {"label_separator": ""}, {"freeze_vectors": True}, {"max_words": 0}, {"term_count": 0}):
        with pytest.raises(ConfigError):
            KeyTermsOptions(**wrong)
