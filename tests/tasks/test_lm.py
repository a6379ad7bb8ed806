"""The language model: what is learned, measured, carried from window to window, saved and resumed."""

import json
import math
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

import carousel.tasks.lm.network as network_module
from carousel.cli.main import main
from carousel.data.token_stream import IGNORED, TokenStream
from carousel.errors import CheckpointError, ConfigError, DataError, NotFittedError
from carousel.tasks import LanguageModel
from carousel.tasks.lm import LanguageModelOptions
from carousel.tasks.lm.inputs import Joiner, LanguageInputs
from carousel.tasks.lm.network import LanguageNetwork
from carousel.tasks.registry import recipe
from carousel.training import optim

QUICK = {
    "hidden_size": 12, "embedding_size": 12, "batch_size": 4, "bptt": 8, "epochs": 4, "lr": 0.02, "input_dropout": 0.0,
    "dropout": 0.0, "output_dropout": 0.0, "threads": 1, "progress": False, "device": "cpu",
}  # fmt: skip


def sentences(count, seed):
    """Subjects and verbs that agree; the entropy is about 0.3 nats a token."""
    draw = random.Random(seed)
    lines = []
    for _ in range(count):
        subject, verb = draw.choice([("the cat", "sits"), ("the dogs", "sit")])
        lines.append(f"{subject} {draw.choice(['', 'in the house '])}{verb} here")
    return lines


def make_network(dtype=torch.float64, cell="lstm", **options):
    torch.manual_seed(1)
    options = LanguageModelOptions(**{
        "hidden_size": 5, "embedding_size": 4, "input_dropout": 0.0, "dropout": 0.0, "output_dropout": 0.0, "cell": cell,
    } | options)  # fmt: skip
    model = LanguageModel(cell=cell)
    return LanguageNetwork(model.cell, 9, options).to(dtype)


def stream_of(count=37, window=5, batch_size=3, **options):
    numbers = np.random.default_rng(2).integers(1, 9, count)
    return TokenStream(numbers, batch_size=batch_size, window=window, start=0, **options)


def gradients(network, windows):
    """Sum of the losses over all targets, and its gradient, window after window."""
    network.zero_grad()
    total = 0.0
    for window in windows:
        measured = network.measure(window)
        (measured.loss * measured.items).backward()
        total += measured.loss.item() * measured.items
    return total, {name: p.grad.clone() for name, p in network.named_parameters()}


# --- truncated backpropagation through time ---------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "peephole_lstm", "gru"])
def test_a_window_over_the_whole_text_is_full_backpropagation(cell):
    network = make_network(cell=cell, num_layers=2).train()
    (window,) = stream_of(window=50)
    total, found = gradients(network, [window])
    # The same without windows, carried states or our loss: torch's, over all rows at once.
    network.zero_grad()
    hidden, _ = network(window.inputs)
    logits = hidden @ network.output_weight.T + network.bias
    expected = torch.nn.functional.cross_entropy(logits.permute(1, 2, 0), window.targets, ignore_index=IGNORED, reduction="sum")
    expected.backward()
    assert total == pytest.approx(expected.item(), rel=1e-12)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"attention": 3, "num_layers": 2}], ids=str)
def test_the_loss_does_not_depend_on_the_window(options):
    totals = []
    for window in (1, 4, 7, 50):
        total, _ = gradients(make_network(**options).train(), stream_of(window=window))
        totals.append(total)
    assert np.ptp(totals) < 1e-9  # states are carried: no border is felt forwards


def test_gradients_stop_at_borders_unless_they_are_let_through():
    """Two windows: with detach=False the second one's gradient is that of the whole."""
    windows = list(stream_of(count=30, window=5, batch_size=3))
    assert len(windows) == 2
    (whole,) = stream_of(count=30, window=10, batch_size=3)
    full, cut, through = make_network(), make_network().train(), make_network(detach=False).train()
    hidden, _ = full(whole.inputs)
    loss = torch.nn.functional.cross_entropy((full.logits(hidden)).permute(1, 2, 0)[..., 5:], whole.targets[:, 5:])
    loss.backward()
    losses = {}
    for name, network in (("cut", cut), ("through", through)):
        network.measure(windows[0])
        losses[name] = network.measure(windows[1]).loss
        losses[name].backward()
        assert losses[name].item() == pytest.approx(loss.item(), rel=1e-12)
    for (name, mine), (_, other), (_, wanted) in zip(
        through.named_parameters(), cut.named_parameters(), full.named_parameters(), strict=True
    ):
        torch.testing.assert_close(mine.grad, wanted.grad, rtol=1e-9, atol=1e-12)
        if "U_" in name:
            assert not torch.allclose(other.grad, wanted.grad, rtol=1e-3)


@pytest.mark.parametrize(("layers", "place"), [(1, 1), (2, 1), (3, 2)])
def test_attention_stands_before_the_last_recurrent_layer(layers, place):
    network = make_network(attention=4, attention_heads=2, attention_size=3, num_layers=layers)
    assert [type(layer).__name__ for layer in network.layers].index("CausalAttention") == place
    assert len(network.layers) == layers + 1
    attention = network.layers[place]
    assert (attention.window, attention.heads, attention.head_size) == (4, 2, 3)


def test_training_and_validation_carry_states_of_their_own():
    network = make_network().train()
    windows = list(stream_of())
    network.measure(windows[0])
    expected = make_network().train()
    expected.measure(windows[0])
    network.eval()
    for window in windows:
        network.measure(window)
    network.train()
    assert network.measure(windows[1]).loss.item() == expected.measure(windows[1]).loss.item()


@pytest.mark.parametrize(
    "options",
    [
        {"random_windows": True},
        {"detach": False},
        {"tie_weights": False, "cell": "gru"},
        {"attention": 9},
        {"optimizer": "sgd", "tie_weights": False},
    ],
    ids=str,
)
def test_a_run_stopped_inside_an_epoch_goes_on_bit_for_bit(tmp_path, options, monkeypatch):
    lines = sentences(60, seed=1)
    settings = QUICK | {"epochs": 2, "output_dropout": 0.2, "save_steps": 3, "patience": None, **options}
    whole = LanguageModel(**settings).fit(lines, valid=lines[:9], out=tmp_path / "whole")
    steps = 0
    measure = LanguageNetwork.measure

    def stopped(self, window):
        nonlocal steps
        steps += self.training
        if steps == 9:
            raise RuntimeError("the power is cut")
        return measure(self, window)

    monkeypatch.setattr(network_module.LanguageNetwork, "measure", stopped)
    with pytest.raises(RuntimeError, match="power"):
        LanguageModel(**settings).fit(lines, valid=lines[:9], out=tmp_path / "parts")
    monkeypatch.undo()
    parts = LanguageModel(**settings).fit(lines, valid=lines[:9], out=tmp_path / "parts", resume=True)
    for name, tensor in whole.network_.state_dict().items():
        assert torch.equal(tensor, parts.network_.state_dict()[name]), name
    assert [row["valid_loss"] for row in parts.result_.history] == [row["valid_loss"] for row in whole.result_.history]


@pytest.mark.parametrize(
    "options", [{"tie_weights": False}, {"tie_weights": True}, {"tie_weights": False, "momentum": 0.5}], ids=str
)
def test_rows_that_a_batch_does_not_have_are_left_alone(tmp_path, options, monkeypatch):
    """Plain descent, with gradients of an embedding's rows and with whole ones."""
    seen, weights = set(), []
    measure = LanguageNetwork.measure

    def watched(self, window):
        if self.training:
            seen.add(self.embedding.sparse)
        return measure(self, window)

    monkeypatch.setattr(network_module.LanguageNetwork, "measure", watched)
    lines = sentences(60, seed=1)
    settings = QUICK | {"epochs": 2, "optimizer": "sgd", "lr": 5.0, "clip_norm": 0.3, "random_windows": True, **options}
    for number, many in enumerate((1, 1 << 19)):
        monkeypatch.setattr(optim, "MANY", many)
        model = LanguageModel(**settings).fit(lines, valid=lines[:9], out=tmp_path / str(number))
        weights.append(model.network_.state_dict())
        assert not model.network_.embedding.sparse
    assert seen == ({True, False} if options == {"tie_weights": False} else {False})
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-4, atol=1e-5)


def test_a_state_of_another_size_is_refused():
    network = make_network().train()
    network.measure(next(iter(stream_of())))
    with pytest.raises(ValueError, match="other sizes"):
        make_network(hidden_size=6).load_run_state(network.run_state())


def test_windows_learn_with_a_rate_in_proportion_to_their_length():
    """One step of plain descent: the change is rate x gradient."""
    from carousel.training import TrainingConfig, train

    class One:
        """A stream of one window."""

        def __init__(self, window):
            self.window = window

        def set_epoch(self, epoch):
            pass

        def __len__(self):
            return 1

        def __iter__(self):
            yield self.window

    import dataclasses
    import tempfile

    (window,) = stream_of(window=50)
    changes = {}
    for rate in (1.0, 0.5):
        network = make_network()
        before = network.bias.detach().clone()
        config = TrainingConfig(optimizer="sgd", lr=0.1, epochs=1, clip_norm=None, threads=1, device="cpu", progress=False)
        with tempfile.TemporaryDirectory() as folder:
            result = train(
                network, One(dataclasses.replace(window, rate=rate)), None, config, f"{folder}/run", monitor="loss", mode="min"
            )
        changes[rate] = network.bias.detach() - before
        assert result.last["lr"] == 0.1  # what is recorded, and what the next step starts from
    torch.testing.assert_close(changes[0.5], changes[1.0] / 2)


# --- the network ------------------------------------------------------------------------------------------------------


def test_tied_weights_have_a_linear_layer_between_different_sizes():
    network = make_network(hidden_size=[7, 5], num_layers=2)
    assert network.output is None
    assert tuple(network.projection.weight.shape) == (4, 5)
    assert network.output_weight is network.embedding.weight
    assert make_network(hidden_size=4).projection is None
    apart = make_network(tie_weights=False)
    assert tuple(apart.output.shape) == (9, 5)
    assert len(set(map(id, apart.parameters()))) == len(list(apart.parameters()))


def test_all_weights_start_within_the_range():
    network = make_network(init_range=0.05, tie_weights=False)
    for name, parameter in network.named_parameters():
        assert parameter.abs().max() <= 0.05, name
        assert parameter.abs().max() > 0.02, name


def test_whole_words_are_dropped_everywhere_in_a_window():
    network = make_network(dtype=torch.float32, embedding_dropout=0.5).train()
    tokens = torch.arange(9).repeat(4, 3)  # (4, 27)
    features = network._embed(tokens)
    gone = (features == 0).all(-1)
    assert 0 < gone[0, :9].sum() < 9
    for row in gone:
        assert torch.equal(row[:9], gone[0, :9])
        assert torch.equal(row[9:18], row[:9])
    there = ~gone
    torch.testing.assert_close(features[there], 2 * network.embedding.weight[tokens[there]])
    assert torch.equal(network.eval()._embed(tokens), network.embedding(tokens))


@pytest.mark.parametrize("locked", [True, False])
def test_locked_dropout_drops_the_same_features_at_all_steps(locked):
    network = make_network(dtype=torch.float32, locked_dropout=locked).train()
    kept = network._drop(torch.ones(50, 3, 40), 0.5) != 0
    assert bool((kept == kept[0]).all()) == locked
    assert 0.3 < kept.float().mean() < 0.7
    assert not torch.equal(kept[:, 0], kept[:, 1])  # each row has masks of its own


def test_penalties_count_in_training_only():
    plain, penalised = (make_network(activation_penalty=a, temporal_penalty=b) for a, b in ((0.0, 0.0), (2.0, 1.0)))
    (window,) = stream_of(window=50)
    hidden, raw, _ = plain._read(window.inputs, None, None)
    expected = 2 * hidden.square().mean() + (raw[1:] - raw[:-1]).square().mean()
    found = penalised.train().measure(window).loss - plain.train().measure(window).loss
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    assert penalised.eval().measure(window).loss.item() == plain.eval().measure(window).loss.item()


def test_a_share_without_targets_counts_nothing():
    window = stream_of(count=4, batch_size=3, window=1)
    last = list(window)[-1].part(2, 3)
    assert last.token_count == 0
    measured = make_network().train().measure(last)
    measured.loss.backward()
    assert (measured.items, measured.loss.item()) == (0, 0.0)


@pytest.mark.parametrize("training", [True, False])
def test_an_adaptive_softmax_is_one(training):
    network = make_network(cutoffs=[2, 5], tie_weights=False, hidden_size=16, init_range=0.5).train(training)
    (window,) = stream_of(count=38, window=50)
    hidden, _ = network(window.inputs)
    scores = network.logits(hidden)  # (T, B, V)
    torch.testing.assert_close(scores.logsumexp(-1), torch.zeros_like(scores[..., 0]), atol=1e-9, rtol=0)
    expected = torch.nn.functional.cross_entropy(
        scores.permute(1, 2, 0), window.targets, ignore_index=IGNORED, reduction="none"
    )
    torch.testing.assert_close(network.losses(hidden, window.targets), expected, rtol=1e-9, atol=1e-12)
    measured = network.measure(window)
    assert measured.loss.item() == pytest.approx(expected.sum().item() / window.token_count, rel=1e-9)
    network.measure(window).loss.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_an_adaptive_softmax_learns_and_is_saved(tmp_path):
    lines = sentences(200, seed=1)
    options = QUICK | {"cutoffs": [3], "tie_weights": False, "epochs": 5}
    model = LanguageModel(**options).fit(lines, valid=lines[:20], out=tmp_path / "run")
    assert model.scores_["perplexity"] < 2.0
    again = LanguageModel.load(tmp_path / "run", device="cpu")
    assert again.evaluate(lines[:20]) == model.evaluate(lines[:20])
    assert "".join(again.generate("the", length=10, seed=1)) == "".join(model.generate("the", length=10, seed=1))
    assert again.encode(["the"]).shape == (1, 12)
    with pytest.raises(ConfigError, match="not so many tokens"):
        LanguageModel(**options | {"cutoffs": [3, 99], "hidden_size": 16}).fit(lines)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"cutoffs": []}, "growing"), ({"cutoffs": [3, 3]}, "growing"), ({"cutoffs": [0]}, "growing"),
     ({"cutoffs": [3], "tie_weights": True}, "tie_weights=false"), ({"cutoffs": [3], "unit": "byte"}, "unit=byte")],
    ids=str,
)  # fmt: skip
def test_impossible_cutoffs_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        LanguageModel(**{"tie_weights": False} | options)


# --- learning and measuring -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[{}, {"attention": 6}], ids=["", "attention"])
def model(tmp_path_factory, request):
    out = tmp_path_factory.mktemp("lm") / "run"
    return LanguageModel(**QUICK, **request.param).fit(sentences(300, seed=1), valid=sentences(30, seed=2), out=out)


def test_it_learns(model):
    assert model.scores_["perplexity"] < 1.6  # 10 tokens; about 1.35 is possible
    rows = model.result_.history
    assert rows[-1]["valid_loss"] < rows[0]["valid_loss"]
    assert rows[-1]["valid_perplexity"] == pytest.approx(math.exp(rows[-1]["valid_loss"]))


@pytest.mark.parametrize(("precision", "dtype"), [("64-true", torch.float64), ("bf16-true", torch.bfloat16)])
def test_it_trains_in_other_floats(precision, dtype):
    lines = sentences(40, seed=1)
    found = LanguageModel(**QUICK | {"epochs": 1, "precision": precision}).fit(lines, valid=lines[:5])
    plain = LanguageModel(**QUICK | {"epochs": 1}).fit(lines, valid=lines[:5])
    assert found.network_.bias.dtype == dtype
    assert found.scores_["perplexity"] == pytest.approx(plain.scores_["perplexity"], rel=0.2)
    assert "".join(found.generate("the", length=5, seed=1))


@pytest.mark.parametrize("random_windows", [False, True])
def test_a_random_text_is_not_predicted_better_than_it_can_be(random_windows):
    """Each token is free: a model that saw a target among its inputs would get below the entropy."""
    draw = random.Random(4)
    lines = ["".join(draw.choice("abcd") for _ in range(20)) for _ in range(60)]
    found = LanguageModel(**QUICK | {"epochs": 2, "unit": "char", "random_windows": random_windows}).fit(lines).evaluate(lines)
    assert found["nats_per_token"] > 0.9 * 20 / 21 * math.log(4)


def test_perplexity_is_that_of_the_scores(model):
    lines = [*sentences(40, seed=3), "", "the unseen cat sits"]
    told = model.evaluate(lines)
    losses = np.concatenate([-score.log_probabilities for score in model.score_lines(lines, continuous=True)])
    assert told["tokens"] == len(losses) == sum(len(line.split()) + 1 for line in lines)
    assert told["perplexity"] == pytest.approx(math.exp(losses.mean(dtype=np.float64)), rel=1e-9)
    assert told["nats_per_token"] == pytest.approx(math.log(told["perplexity"]))
    characters = sum(len(line) + 1 for line in lines)
    assert told["bits_per_char"] == pytest.approx(losses.sum(dtype=np.float64) / math.log(2) / characters)


def test_scores_are_those_of_reading_token_by_token(model):
    (score,) = model.score_lines(["the dogs sit here"])
    reading = model.start()
    by_hand = []
    for number in score.numbers.tolist():
        by_hand.append(reading.log_probabilities[0, number])
        reading.read([number])
    np.testing.assert_allclose(score.log_probabilities, by_hand, rtol=1e-4, atol=1e-5)
    assert score.tokens == ["the", "dogs", "sit", "here", "<eos>"]
    assert score.total == pytest.approx(sum(by_hand), rel=1e-4)


def test_lines_are_scored_by_themselves(model):
    lines = ["the dogs sit here", "", "the cat in the house sits here", "here the"]
    together = [score.total for score in model.score_lines(lines)]
    alone = [next(model.score_lines([line])).total for line in lines]
    np.testing.assert_allclose(together, alone, rtol=1e-4)


def test_long_lines_are_read_in_windows(model, monkeypatch):
    import carousel.tasks.lm.scoring as scoring

    line = " ".join(sentences(30, seed=5))
    (expected,) = model.score_lines([line])
    told = model.evaluate([line])
    monkeypatch.setattr(scoring, "STEPS", 7)
    (found,) = model.score_lines([line, "the cat"][:1])
    np.testing.assert_allclose(found.log_probabilities, expected.log_probabilities, rtol=1e-3, atol=1e-5)
    assert model.evaluate([line])["perplexity"] == pytest.approx(told["perplexity"], rel=1e-5)
    pair = list(model.score_lines([line, "the cat sits here"]))
    assert pair[1].total == pytest.approx(next(model.score_lines(["the cat sits here"])).total, rel=1e-4)


def turned_round(lines):
    return [" ".join(line.split()[::-1]) for line in lines][::-1]


def test_a_backward_model_reads_the_other_way():
    lines, held = sentences(60, seed=1), sentences(9, seed=2)
    forward = LanguageModel(**QUICK).fit(lines, valid=held)
    other = LanguageModel(**QUICK | {"direction": "backward"}).fit(turned_round(lines), valid=turned_round(held))
    assert other.scores_ == forward.scores_  # what it was given, in its order, is the same text
    texts = sentences(20, seed=6)
    turned = turned_round(texts)
    for mine, theirs in zip(other.score_lines(turned), reversed(list(forward.score_lines(texts))), strict=True):
        assert mine.tokens == [*theirs.tokens[-2::-1], "<eos>"]
        assert mine.log_probabilities[:-1].tolist() == theirs.log_probabilities[-2::-1].tolist()
        assert mine.total == pytest.approx(theirs.total, rel=1e-6)
    told = other.evaluate(turned)
    losses = np.concatenate([-score.log_probabilities for score in other.score_lines(turned, continuous=True)])
    assert told["perplexity"] == pytest.approx(math.exp(losses.mean(dtype=np.float64)), rel=1e-9)
    with pytest.raises(ConfigError, match="cannot write on"):
        other.generate("the")


def test_saving_and_loading_change_nothing(model, tmp_path):
    model.save(tmp_path / "saved")
    again = LanguageModel.load(tmp_path / "saved", device="cpu")
    lines = sentences(10, seed=8)
    assert again.evaluate(lines) == model.evaluate(lines)
    assert list(again.generate("the", length=20, seed=1)) == list(model.generate("the", length=20, seed=1))


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"tokenizer": 1, "spaces": true, "line_ends": true, "backward": false}',
                '{"tokenizer": {"unit": "word", "lowercase": false}, "spaces": 1, "line_ends": true, "backward": false}']
)  # fmt: skip
def test_damaged_files_are_named(model, tmp_path, content):
    model.save(tmp_path / "saved")
    (tmp_path / "saved" / "text.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"text\.json"):
        LanguageModel.load(tmp_path / "saved")


def test_a_vocabulary_without_the_end_of_a_line_is_refused(model, tmp_path):
    model.save(tmp_path / "saved")
    path = tmp_path / "saved" / "vocabulary.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({"tokens": [t for t in content["tokens"] if t != "<eos>"]}))
    with pytest.raises(CheckpointError, match=r"vocabulary\.json"):
        LanguageModel.load(tmp_path / "saved")


# --- texts ------------------------------------------------------------------------------------------------------------


def learned(lines, **options):
    return LanguageInputs.learn(lambda: iter(lines), LanguageModelOptions(**options))


def test_the_penn_treebank_is_cut_as_everyone_does():
    lines = [" no it was n't <unk> ", " mr. <unk> is N years old "]
    inputs = learned(lines, unit="word")
    numbers, characters = inputs.stream(lines)
    assert inputs.spaces
    assert len(numbers) == 5 + 6 + 2
    assert (numbers == 0).sum() == 2  # <unk> is the unknown token itself
    assert len(inputs) == len({"no", "it", "was", "n't", "mr.", "is", "N", "years", "old", "<eos>", "<unk>"})
    assert characters == sum(map(len, lines)) + 2


@pytest.mark.parametrize("unit", ["char", "byte", "subword"])
@pytest.mark.parametrize("text", ["First  line:\tA\n\n second “line” é\n", "房间很大\r\n早餐不错"])
def test_texts_come_back_whole(unit, text):
    inputs = learned([text] * 3, unit=unit, vocab_size=280)
    joiner = Joiner(inputs)
    back = "".join(joiner.add(number) for number in inputs.encode(text)) + joiner.close()
    assert back == text.replace("\r\n", "\n")


def test_lines_may_run_on():
    lines = ["a b", "c"]
    assert [learned(lines, unit="word", line_ends=False).stream(lines)[0].tolist()] == [[2, 3, 4]]
    inputs = learned(lines, unit="char", line_ends=False)
    assert "".join(inputs.tokens[number] for number in inputs.stream(lines)[0].tolist()) == "a b c "


def test_a_long_line_is_cut_in_pieces_without_a_seam(monkeypatch):
    import carousel.tasks.lm.inputs as module

    line = " ".join(f"word{number} isn't, é 大" for number in range(50))
    for unit in ("word", "char", "byte", "subword"):
        inputs = learned([line], unit=unit, vocab_size=300)
        whole = list(inputs.encode_line(line))
        with monkeypatch.context() as patch:
            patch.setattr(module, "PIECE", 40)
            assert list(inputs.encode_line(line)) == whole, unit


def test_lists_of_texts_and_files_are_the_same(model, tmp_path):
    lines = sentences(12, seed=9)
    path = tmp_path / "text.txt"
    path.write_text("\n".join(lines) + "\n")
    assert model.evaluate(path) == model.evaluate(lines) == model.evaluate(["\n".join(lines)])


def test_a_vocabulary_of_one_can_be_learned_and_written():
    model = LanguageModel(**QUICK | {"epochs": 1}).fit(["", "", "", "", "", "", "", "", "", "", ""])
    assert model.inputs_.tokens == ["<unk>", "\n"] or model.inputs_.tokens == ["<unk>", "<eos>"]
    assert "".join(model.generate(length=3, seed=1)) == "\n\n\n"
    assert model.evaluate(["", ""])["tokens"] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((["one"],), "too few lines"), ((["a"], ["b"]), None), (([],), "too few lines"), ((["a b", 3],), "no text")],
)
def test_what_cannot_be_learned_from_is_refused(arguments, said):
    if said is None:
        assert LanguageModel(**QUICK | {"epochs": 1}).fit(arguments[0], valid=arguments[1]).scores_["tokens"] == 2
        return
    with pytest.raises(DataError, match=said):
        LanguageModel(**QUICK).fit(*arguments)


def test_what_needs_training_says_so():
    for call in (
        lambda m: m.evaluate(["a"]),
        lambda m: m.generate("a"),
        lambda m: list(m.score_lines(["a"])),
        lambda m: m.start(),
    ):
        with pytest.raises(NotFittedError):
            call(LanguageModel())


def test_labels_are_refused(model):
    with pytest.raises(ConfigError, match="no labels"):
        model.judge(["a"])


def test_cells_and_sizes_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="cannot read a text"):
        LanguageModel(**QUICK, cell="gru_d").fit(["a"] * 20)
    with pytest.raises(ConfigError, match="one for each layer"):
        LanguageModel(hidden_size=[3, 4])
    with pytest.raises(ConfigError, match="sizes of layers"):
        LanguageModel(hidden_size=[0], num_layers=1)


def test_next_words_vectors_and_predictions(model):
    (told,) = model.predict_records(["the dogs"])
    best = told["next"][0]
    assert best[0] in ("sit", "in")
    assert 0.3 < best[1] < 0.8
    assert model.predict(["the"])[0] in ("cat", "dogs", "house")
    assert model.predict_proba(["the", "the cat"]).shape == (2, len(model.inputs_))
    assert model.encode(["the", "", "the cat sits"]).shape == (3, 12)
    assert model.encode([]).shape == (0, 12)
    assert list(model.continuations("the cat", ["sits here", "sit here"])) == sorted(
        model.continuations("the cat", ["sits here", "sit here"]), reverse=True
    )


# --- recipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["zaremba_small", "zaremba_medium", "zaremba_large", "awd_lstm"])
def test_recipes_are_possible_and_train(tmp_path, name, capsys):
    assert recipe("lm", name) is not None
    text = tmp_path / "text.txt"
    text.write_text("\n".join(sentences(30, seed=1)) + "\n")
    small = ["--hidden_size", "[6, 6, 4]" if name == "awd_lstm" else "6", "--embedding_size", "4", "--epochs", "1"]
    words = ["fit", "lm", "--config", name, "--train", str(text), "--valid", str(text), "--out", str(tmp_path / "run")]
    assert main([*words, *small, "--threads", "1", "--progress", "false"]) == 0
    assert "perplexity" in capsys.readouterr().out
    assert math.isfinite(LanguageModel.load(tmp_path / "run").evaluate(text)["perplexity"])


def test_a_recipe_that_is_not_there_is_none():
    assert recipe("lm", "zaremba_tiny") is None
    assert recipe("lm", "../options") is None


def test_processes_share_the_rows_of_every_window(tmp_path):
    """Each carries the states of its own rows; together they are one process, but for rounding."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from carousel.tasks import LanguageModel\n"
        "if __name__ == '__main__':\n"
        f"    lines, options = {sentences(40, seed=1)!r}, {QUICK | {'epochs': 2}!r}\n"
        "    trainer = {'devices': int(sys.argv[1])}\n"
        "    model = LanguageModel(**options, trainer=trainer).fit(lines, valid=lines[:5])\n"
        "    print([row['valid_loss'] for row in model.result_.history])\n"
    )
    found = []
    for devices in ("1", "2"):
        done = subprocess.run([sys.executable, str(script), devices], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


def test_a_text_has_no_columns(model):
    with pytest.raises(ConfigError, match="text_field"):
        model.read_with(text_field="review")
    assert model.read_with(format=None) is model
