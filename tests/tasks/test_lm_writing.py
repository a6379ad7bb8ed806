"""What a language model writes, and how its tokens are drawn."""

import itertools
import os
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest

from carousel.cli.main import main
from carousel.errors import ConfigError
from carousel.tasks import LanguageModel
from carousel.tasks.lm.sampling import Sampler, Sampling
from tasks.test_lm import QUICK, sentences


@pytest.fixture(scope="module", params=[{}, {"attention": 6}], ids=["", "attention"])
def run(tmp_path_factory, request):
    out = tmp_path_factory.mktemp("lm") / "run"
    options = QUICK | {"epochs": 8, "split": "space"} | request.param
    LanguageModel(**options).fit(sentences(200, seed=1), valid=sentences(30, seed=2), out=out)
    return out


@pytest.fixture(scope="module")
def model(run):
    return LanguageModel.load(run, device="cpu")


# --- drawing ----------------------------------------------------------------------------------------------------------


def drawn(chances, count=4000, allowed=None, **options):
    sampler = Sampler(Sampling(seed=1, **options))
    scores = np.log(np.array(chances))
    numbers = [sampler.draw(scores, allowed) for _ in range(count)]
    return np.bincount(numbers, minlength=len(chances)) / count


CHANCES = [0.1, 0.5, 0.15, 0.25]


def test_tokens_come_with_their_probabilities():
    # Four standard errors of a share over 4,000 draws are 0.03.
    np.testing.assert_allclose(drawn(CHANCES), CHANCES, atol=0.032)
    sharper = np.array(CHANCES) ** 2
    np.testing.assert_allclose(drawn(CHANCES, temperature=0.5), sharper / sharper.sum(), atol=0.032)


@pytest.mark.parametrize(
    ("options", "possible"),
    [
        ({"temperature": 0}, {1}),
        ({"top_k": 2}, {1, 3}),
        ({"top_k": 9}, {0, 1, 2, 3}),
        ({"top_p": 0.5}, {1}),
        ({"top_p": 0.7}, {1, 3}),
        ({"top_p": 0.8}, {1, 3, 2}),
        ({"top_p": 1.0}, {0, 1, 2, 3}),
        ({"top_k": 3, "top_p": 0.7}, {1, 3}),
        ({"allowed": np.array([True, False, True, False])}, {0, 2}),
    ],
    ids=str,
)
def test_what_may_be_drawn(options, possible):
    assert set(np.flatnonzero(drawn(CHANCES, 1000, **options))) == possible


def test_repetition_costs():
    plain, penalised = drawn(CHANCES), drawn(CHANCES, repetition_penalty=3.0, repetition_window=1)
    assert penalised[1] < plain[1] - 0.05
    sampler = Sampler(Sampling(temperature=0, repetition_penalty=5.0, repetition_window=2))
    assert [sampler.draw(np.log(CHANCES)) for _ in range(6)] == [1, 3, 2, 1, 3, 2]


def test_nothing_allowed_is_an_error():
    with pytest.raises(ConfigError, match="no token left"):
        Sampler(Sampling()).draw(np.log(CHANCES), np.zeros(4, bool))


@pytest.mark.parametrize(
    "options",
    [{"temperature": -1}, {"temperature": float("nan")}, {"top_k": 0}, {"top_k": 1.5}, {"top_p": 0.0}, {"top_p": 1.1},
     {"repetition_penalty": 0.5}, {"seed": -1}, {"repetition_window": -1}],
    ids=str,
)  # fmt: skip
def test_impossible_values_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Sampling(**options)


# --- writing ----------------------------------------------------------------------------------------------------------


def test_a_seed_repeats_a_text_and_another_does_not(model):
    texts = ["".join(model.generate("the", length=60, seed=seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert len({"".join(model.generate("the", length=60)) for _ in range(3)}) > 1


def test_it_writes_what_it_learned(model):
    text = "".join(model.generate(length=400, seed=5))
    lines = text.split("\n")[:-1]
    assert len(lines) > 30
    right = [line for line in lines if line in set(sentences(200, seed=1))]
    assert len(right) > 0.5 * len(lines)  # of all rows of as many words, one in thousands is one


def test_parts_of_a_text_come_one_by_one_without_end(model):
    parts = model.generate(seed=3)
    first = list(itertools.islice(parts, 50))
    assert all(first)
    assert "".join(first) == "".join(model.generate(seed=3, length=50))


def test_streaming_agrees_with_reading_at_once(model):
    tokens = list(model.tokens("the cat", length=25, sampling=Sampling(seed=4)))
    whole = model.start().read_all(model.inputs_.encode("the cat") + [token.number for token in tokens])
    step = model.start()
    for number in model.inputs_.encode("the cat") + [token.number for token in tokens]:
        step.read([number])
    np.testing.assert_allclose(step.log_probabilities, whole.log_probabilities, atol=1e-4)
    np.testing.assert_allclose(step.hidden, whole.hidden, atol=1e-4)
    scores = model.start().read_all(model.inputs_.encode("the cat")).log_probabilities[0]
    assert tokens[0].log_probability == pytest.approx(float(scores[tokens[0].number]))


def test_readings_can_be_parted_for_a_search(model):
    encode = model.inputs_.encode
    reading = model.start(2).read(encode("the here"))
    chosen = reading.select([1, 0, 1])
    chosen.read(encode("dogs cat the"))
    expected = [model.start().read_all(encode(text)).log_probabilities[0] for text in ("here dogs", "the cat", "here the")]
    np.testing.assert_allclose(chosen.log_probabilities, expected, atol=1e-4)
    np.testing.assert_allclose(
        reading.log_probabilities, [model.start().read_all(encode(t)).log_probabilities[0] for t in ("the", "here")], atol=1e-4
    )
    assert (len(reading), len(chosen)) == (2, 3)


def test_continuations_are_scored(model):
    reading, total = model.start().read_all(model.inputs_.encode("the cat")), 0.0
    for number in model.inputs_.encode("sits here"):
        total += reading.log_probabilities[0, number]
        reading.read([number])
    assert model.continuations("the cat", ["sits here", ""]).tolist() == [pytest.approx(total, abs=1e-4), 0.0]


def test_a_stop_ends_the_text_before_it(model):
    whole = "".join(model.generate(length=60, seed=6))
    for stop in ("\n", "here\nthe", ["nowhere", "dogs"], "s"):
        found = "".join(model.generate(length=60, seed=6, stop=stop))
        stops = [stop] if isinstance(stop, str) else stop
        places = [whole.find(one) for one in stops if one in whole]
        assert found == (whole[: min(places)] if places else whole)
    with pytest.raises(ConfigError, match="stop"):
        model.generate(stop="")


def test_only_what_is_allowed_is_written(model):
    numbers = model.inputs_.encode("the cat")
    seen = []

    def allowed(last):
        seen.append(last)
        return numbers if len(seen) % 2 else None

    tokens = [token.number for token in model.tokens(length=20, allowed=allowed, sampling=Sampling(seed=1))]
    assert set(tokens[::2]) <= set(numbers)
    assert seen == [None, *tokens[:-1]]
    mask = np.zeros(len(model.inputs_), bool)
    mask[numbers[1]] = True
    assert "".join(model.generate(length=3, allowed=lambda last: mask)) == "cat cat cat"
    with pytest.raises(ConfigError, match="another length"):
        list(model.generate(length=1, allowed=lambda last: mask[1:]))
    with pytest.raises(ConfigError, match="no token left"):
        list(model.generate(length=1, allowed=lambda last: [0]))  # the unknown token is never written


def test_words_that_are_not_known_are_said(model):
    with pytest.warns(UserWarning, match="'zebra'"):
        text = "".join(model.generate("the zebra", length=40, seed=1))
    assert "<unk>" not in text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.generate("the <unk> cat", length=4)


def test_characters_and_bytes_and_pieces_are_put_together():
    lines = ["房间很大 é", "早餐不错 é"] * 20
    for unit in ("char", "byte", "subword"):
        model = LanguageModel(**QUICK | {"epochs": 1, "unit": unit, "vocab_size": 270}).fit(lines, valid=lines[:4])
        parts = list(model.generate("早", length=200, seed=2))
        assert all(parts)
        assert "".join(parts) == "".join(model.generate("早", length=200, seed=2))


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_writes(run, capsys):
    words = ["generate", str(run), "--prompt", "the cat", "--length", "20", "--seed", "3"]
    assert main(words) == 0
    first = capsys.readouterr().out
    assert first.startswith("the cat ")
    assert main([*words, "--no_prompt"]) == 0
    assert "the cat" + capsys.readouterr().out == first
    assert main([*words, "--stop", r"\n", "--temperature", "0", "--top_k", "3", "--top_p", "0.9"]) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_the_command_says_what_is_not_known(run, capsys):
    assert main(["generate", str(run), "--prompt", "the zebra", "--length", "2", "--seed", "1"]) == 0
    assert "note: not in the model's vocabulary, read as unknown: 'zebra'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--length", "-1"], "length"), (["--temperature", "-1"], "temperature"), (["--top_p", "2"], "top_p"),
     (["--stop", ""], "stop"), (["--lenght", "3"], "--length")],
)  # fmt: skip
def test_the_command_refuses_what_is_impossible(run, options, said, capsys):
    assert main(["generate", str(run), *options]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is another thing there")
def test_ctrl_c_ends_writing_cleanly(run):
    command = [sys.executable, "-m", "carousel", "generate", str(run), "--length", "0", "--seed", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()  # it is writing now
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert first.strip()
    assert rest.endswith("\n")
    assert (process.returncode, errors) == (130, "")
