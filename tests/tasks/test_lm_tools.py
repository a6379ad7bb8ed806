"""Blanks, validity, agreement, word vectors, and the command that scores."""

import json
import math

import numpy as np
import pytest

from carousel.cli.main import main
from carousel.errors import ConfigError, DataError
from carousel.tasks import LanguageModel
from carousel.tasks.lm import agreement_sentences, correlation, cut_blanks, fill_blanks, judge_validity, nearest
from carousel.tasks.lm.agreement import score_agreement
from carousel.tasks.lm.blanks import Blank, parse_blank
from carousel.tasks.lm.validity import matthews, read_judgements
from carousel.tasks.lm.vectors import embeddings, spearman, write_vectors
from tasks.test_lm import QUICK, sentences


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    for name in ("forward", "backward"):
        model = LanguageModel(**QUICK | {"epochs": 8, "direction": name})
        model.fit(sentences(300, seed=1), valid=sentences(30, seed=2), out=folder / name)
    return folder


@pytest.fixture(scope="module")
def model(runs):
    return LanguageModel.load(runs / "forward", device="cpu")


@pytest.fixture(scope="module")
def backward(runs):
    return LanguageModel.load(runs / "backward", device="cpu")


def test_blanks_are_parsed():
    blank = parse_blank("我喜欢宠物，家里养了一[只|支]可爱的小花猫")
    assert (blank.before, blank.candidates, blank.after) == ("我喜欢宠物，家里养了一", ("只", "支"), "可爱的小花猫")
    assert str(blank) == "我喜欢宠物，家里养了一[只|支]可爱的小花猫"
    assert blank.filled(1) == "我喜欢宠物，家里养了一支可爱的小花猫"
    for line in ("none", "[one]", "[a|b] [c|d]"):
        with pytest.raises(DataError, match="one blank"):
            parse_blank(line)


def test_blanks_are_filled_by_what_stands_before_and_behind(model, backward):
    lines = [parse_blank("the cat [sits|sit] here"), parse_blank("the dogs in the house [sits|sit] here")]
    for models in ((model,), (model, backward)):
        assert [found.best for found in fill_blanks(lines, *models)] == [0, 1]
    # Only what stands behind tells which one it was.
    behind = [parse_blank("the [cat|dogs] sit here"), parse_blank("the [cat|dogs] sits here")]
    for models in ((model, backward), (backward,)):
        assert [found.best for found in fill_blanks(behind, *models)] == [1, 0]
    (one,) = fill_blanks(behind[:1], model, backward)
    assert sum(one.probabilities) == pytest.approx(1.0)
    both = np.array(one.forward) + np.array(one.backward)
    assert math.log(one.probabilities[0] / one.probabilities[1]) == pytest.approx(both[0] - both[1], rel=1e-6)
    assert one.forward[0] == pytest.approx(next(model.score_lines(["the cat sit here"])).total, rel=1e-5)
    assert fill_blanks([], model) == []


def test_blanks_are_cut_where_the_right_word_was():
    lines = [*sentences(50, seed=4), "too short"]
    blanks = cut_blanks(lines, candidates=3, seed=2)
    assert len(blanks) == 50
    for line, blank in zip(lines, blanks, strict=False):
        assert blank.filled(blank.right) == line
        assert len(set(blank.candidates)) == 3
    assert blanks == cut_blanks(lines, candidates=3, seed=2) != cut_blanks(lines, candidates=3, seed=3)
    assert len({blank.right for blank in blanks}) == 3
    assert len(cut_blanks(lines, candidates=3, most=7)) == 7
    assert cut_blanks(lines, candidates=50) == []
    characters = cut_blanks(["房间很大", "早餐不错"], candidates=2, characters=True)
    assert [blank.filled(blank.right) for blank in characters] == ["房间很大", "早餐不错"]


def test_validity_is_judged_by_a_threshold(model):
    valid = sorted(set(sentences(40, seed=7)))
    wrong = [" ".join(line.split()[::-1]) for line in valid]
    pairs = [(line, True) for line in valid] + [(line, False) for line in wrong]
    found = judge_validity(model, pairs[::2], pairs[1::2])
    assert found.matthews > 0.8
    assert found.train_matthews > 0.8
    assert found.count == len(pairs[1::2])
    # A rare word alone does not make a sentence invalid: without its frequency it would.
    assert judge_validity(model, [("the cat", True)], [("the cat", True)]).matthews == 0.0


def test_matthews_is_the_correlation_of_two_rows():
    draw = np.random.default_rng(1)
    for _ in range(20):
        one, other = draw.random(30) < 0.4, draw.random(30) < 0.6
        assert matthews(one, other) == pytest.approx(np.corrcoef(one, other)[0, 1])
    assert matthews(np.ones(4, bool), np.array([True, False, True, False])) == 0.0


def test_judged_sentences_are_read(tmp_path):
    path = tmp_path / "cola.tsv"
    path.write_text('gj04\t1\t\tThe "cat" sits.\ngj04\t0\t*\tSits the cat the.\n\n')
    assert read_judgements(path) == [('The "cat" sits.', True), ("Sits the cat the.", False)]
    path.write_text("1\tThe cat.\n")
    assert read_judgements(path) == [("The cat.", True)]
    path.write_text("1\tThe cat.\nThe cat.\n")
    with pytest.raises(DataError, match=r"cola\.tsv:2"):
        read_judgements(path)
    path.write_text("\n")
    with pytest.raises(DataError, match="no sentence"):
        read_judgements(path)


def test_sentences_are_made_over_all_distances():
    made = agreement_sentences()
    assert len({str(blank) + str(blank.right) for blank, _, _ in made}) == len(made) > 900
    for blank, distance, _ in made:
        assert len(blank.before.split()) == 2 + distance
        assert blank.candidates[blank.right] in ("was", "is", "has") or blank.right == 1
    assert {distance for _, distance, _ in made} == {0, 3, 4, 5, 7, 8, 11, 13}
    assert len([1 for _, _, astray in made if astray]) == pytest.approx(len(made) * 10 / 22, rel=0.01)
    assert len(agreement_sentences(most=9)) == 9
    assert agreement_sentences(known={"the"}) == []


def test_agreement_is_scored_by_distance(model):
    there = [
        (Blank("the cat ", ("sits", "sit"), " here", 0), 0, False),
        (Blank("the dogs ", ("sits", "sit"), " here", 1), 0, False),
        (Blank("the dogs in the house ", ("sits", "sit"), " here", 1), 3, True),
    ]
    found = score_agreement(there, model)
    assert (found.accuracy, found.count, found.attracted) == (1.0, 3, 1.0)
    assert found.by_distance == {0: (1.0, 2), 3: (1.0, 1)}
    wrong = [(Blank("the cat ", ("sits", "sit"), " here", 1), 0, False)]
    assert score_agreement(wrong, model).accuracy == 0.0
    assert score_agreement(wrong, model).attracted is None


def test_vectors_are_written_as_word2vec_does(model, tmp_path):
    from carousel.data import read_vectors

    path = tmp_path / "vectors.txt"
    tokens, matrix = embeddings(model)
    assert write_vectors(model, path) == len(tokens) == len(model.inputs_) - 1
    found = read_vectors(path, set(tokens))
    place = {token: number for number, token in enumerate(tokens)}
    assert set(found.tokens) == set(tokens)
    np.testing.assert_allclose(found.matrix, matrix[[place[token] for token in found.tokens]], rtol=1e-5)


def test_neighbours_are_those_with_the_largest_cosine(model):
    tokens, matrix = embeddings(model)
    units = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    cosines = units @ units[tokens.index("cat")]
    found = nearest(model, "cat", 3)
    assert [token for token, _ in found] == [tokens[n] for n in np.argsort(-cosines)[1:4]]
    assert found[0][1] == pytest.approx(float(np.sort(cosines)[-2]), rel=1e-5)
    assert len(nearest(model, "cat", 99)) == len(tokens) - 1
    with pytest.raises(ConfigError, match=r"unknown word 'cats'\. Did you mean 'cat'"):
        nearest(model, "cats")


def test_correlation_is_spearmans(model, tmp_path):
    draw = np.random.default_rng(3)
    for _ in range(20):
        left, right = draw.integers(0, 6, 15).astype(float), draw.random(15)
        ranks = [np.array([(values < v).sum() + (values == v).sum() / 2 for v in values]) for values in (left, right)]
        assert spearman(left, right) == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert spearman([1.0, 1.0], [1.0, 2.0]) == 0.0
    path = tmp_path / "pairs.txt"
    path.write_bytes(b"cat dogs 9.5\r\nThe\there 2\r\nsit sits 7\r\nzebra cat 1\r\n")
    value, known, total = correlation(model, path)
    assert (known, total) == (3, 4)
    assert -1 <= value <= 1
    path.write_text("cat dogs\n")
    with pytest.raises(DataError, match=r"pairs\.txt:1"):
        correlation(model, path)
    path.write_text("zebra lion 1\n")
    with pytest.raises(DataError, match="0 of 1"):
        correlation(model, path)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join([*sentences(12, seed=9), "", "here the the"]) + "\n")
    return path


def told(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_scores_of_a_file_are_its_perplexity(runs, text, capsys):
    assert main(["evaluate", str(runs / "forward"), "--data", str(text), "--json"]) == 0
    (measured,) = told(capsys)
    assert set(measured) == {"perplexity", "nats_per_token", "bits_per_char", "tokens"}
    assert main(["score", str(runs / "forward"), str(text), "--json", "--tokens", "--continuous"]) == 0
    lines = told(capsys)
    losses = [-value for line in lines for _, value in line["tokens"]]
    assert len(losses) == measured["tokens"] == sum(line["token_count"] for line in lines)
    assert math.exp(sum(losses) / len(losses)) == pytest.approx(measured["perplexity"], rel=1e-9)
    assert sum(line["log_probability"] for line in lines) == pytest.approx(-sum(losses))


def test_lines_are_ranked(runs, text, capsys):
    assert main(["score", str(runs / "forward"), str(text), "--rank", "--json"]) == 0
    lines = told(capsys)
    means = [line["per_token"] for line in lines]
    assert means == sorted(means, reverse=True)
    assert {line["text"] for line in lines[-2:]} == {"here the the", ""}
    assert main(["score", str(runs / "forward"), str(text), "--tokens"]) == 0
    assert "<eos>" in capsys.readouterr().out


def test_places_and_blanks_are_filled(runs, tmp_path, capsys):
    path = tmp_path / "lines.txt"
    path.write_text("the dogs\nthe [] sit here\n")
    words = ["score", str(runs / "forward"), str(path), "--next", "3", "--json", "--backward", str(runs / "backward")]
    assert main(words) == 0
    end, middle = told(capsys)
    assert {token for token, _ in end["next"][:2]} == {"sit", "in"}
    assert middle["next"][0][0] == "dogs"
    path.write_text("the cat [sits|sit] here\n\nthe [cat|dogs] sit here\n")
    assert main(["score", str(runs / "forward"), str(path), "--fill", "--backward", str(runs / "backward")]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[-1] for line in out] == ["the cat sits here", "", "the dogs sit here"]


def test_tests_of_the_command(runs, text, tmp_path, capsys):
    both = ["--backward", str(runs / "backward"), "--json"]
    assert main(["score", str(runs / "forward"), str(text), "--blanks", "2", *both]) == 0
    (found,) = told(capsys)
    assert found["chance"] == 0.5
    assert found["count"] == 13
    assert min(found["forward_accuracy"], found["backward_accuracy"]) > 0.6
    assert found["both_accuracy"] >= 0.8
    judged = tmp_path / "judged.tsv"
    judged.write_text("".join(f"1\t{line}\n0\t{line[::-1]}\n" for line in sorted(set(sentences(30, seed=3)))))
    assert main(["score", str(runs / "forward"), str(judged), "--validity", str(judged), "--json"]) == 0
    assert told(capsys)[0]["matthews"] > 0.5
    assert main(["score", str(runs / "forward"), "--agreement", "9", "--json"]) == 2
    assert "knows none of the words" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--rank", "--continuous"], "--continuous"), (["--fill", "--next", "2"], "one thing at a time"),
     (["--next", "0"], "at least 1"), (["--blanks", "1"], "at least 2"), (["--fill", "--rank"], "one thing at a time")],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(runs, text, options, said, capsys):
    assert main(["score", str(runs / "forward"), str(text), *options]) == 2
    assert said in capsys.readouterr().err


def test_the_second_model_must_read_backward(runs, text, capsys):
    assert main(["score", str(runs / "forward"), str(text), "--fill", "--backward", str(runs / "forward")]) == 2
    assert "--direction backward" in capsys.readouterr().err


def test_the_vectors_verb(runs, tmp_path, capsys):
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("cat dogs 9\nsit sits 7\nthe here 1\n")
    run = str(runs / "forward")
    words = ["vectors", run, "--out", str(tmp_path / "v.txt"), "--near", "cat", "--test", str(pairs), "--json"]
    assert main(words) == 0
    (found,) = told(capsys)
    assert len((tmp_path / "v.txt").read_text().splitlines()) == found["written"] + 1
    assert found["test"]["pairs.txt"]["pairs"] == 3
    assert len(found["near"]["cat"]) == found["written"] - 1
    assert main(words[:-1]) == 0
    assert "Spearman" in capsys.readouterr().out
    assert main(["vectors", run]) == 2
    assert main(["vectors", run, "--near", "xyz"]) == 2
