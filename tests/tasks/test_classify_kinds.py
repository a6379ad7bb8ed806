"""The classifier's kinds of input and answer: series, several labels, numbers, subwords, vectors, files too large to keep."""

import gzip
import json
import random

import numpy as np
import pytest
import torch

from carousel.data import Example, Series, read_json
from carousel.errors import CheckpointError, ConfigError, DataError
from carousel.tasks import Classifier
from carousel.tasks.classify.network import OneHead, SeveralHead, TokenEmbedding
from carousel.tasks.classify.numbers import NumberTarget, recall_target
from carousel.tasks.classify.options import ClassifierOptions
from carousel.tasks.classify.records import source_kind
from carousel.tasks.classify.sources import SeriesSource, recall_source
from carousel.tasks.classify.targets import OneTarget, SeveralTarget
from carousel.tasks.splits import held_places

WORDS = ["alpha", "beta", "gamma", "the", "a", "of"]


def waves(count, seed, *, channels=2, missing=0.0):
    """Pairs (series, label): the first channel rises or falls; its scale and the other channel say nothing."""
    draw = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        T, label = int(draw.integers(4, 9)), str(draw.choice(["down", "up"]))
        values = draw.normal(50.0, 20.0, (T, channels))
        values[:, 0] = (1000 + 10 * np.arange(T) * (1 if label == "up" else -1)) + draw.normal(0, 3, T)
        values[draw.random(values.shape) < missing] = np.nan
        pairs.append((values, label))
    return pairs


def sets(count, seed):
    """Pairs (text, labels): which of three words a text holds."""
    draw = random.Random(seed)
    pairs = []
    for _ in range(count):
        words = [draw.choice(WORDS) for _ in range(4)]
        pairs.append((" ".join(words), tuple(sorted({"alpha", "beta", "gamma"} & set(words)))))
    return pairs


def series_of(values, label=None, line=1):
    return Series(values=np.asarray(values, np.float32), label=label, name=None, path="file.ts", line=line)


def source_of(*series, **options):
    return SeriesSource.learn(lambda: series, ClassifierOptions(**options))


# --- series -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wave_run(tmp_path_factory, quick):
    out = tmp_path_factory.mktemp("waves") / "run"
    Classifier(**quick | {"epochs": 8}).fit(waves(120, 1, missing=0.1), waves(40, 2, missing=0.1), out=out)
    return out


def test_series_are_learned_saved_and_answered_the_same(wave_run):
    model = Classifier.load(wave_run)
    assert model.evaluate(waves(40, 3, missing=0.1))["accuracy"] > 0.9
    rising, falling = 1000 + 10.0 * np.arange(6), 1000 - 10.0 * np.arange(6)
    answers = model.predict_records([np.stack([line, np.full(6, 50.0)], 1) for line in (rising, falling)])
    assert [answer["label"] for answer in answers] == ["up", "down"]
    assert [token for token, _ in answers[0]["attention"]] == ["1", "2", "3", "4", "5", "6"]
    assert not (wave_run / "vocabulary.json").exists()
    assert read_json(wave_run / "series.json")["masked"] == [True, True]


def test_series_are_standardised_by_the_training_data():
    source = source_of(series_of([[1, 5], [3, 5]]), series_of([[5, 5]]))
    assert source.means == (3.0, 5.0)
    assert source.deviations == (pytest.approx((8 / 3) ** 0.5), 1.0)  # a channel that never changes is left at 0
    assert source.encode(series_of([[3, 5], [3 + (8 / 3) ** 0.5, 7]])).tolist() == [[0, 0], [pytest.approx(1.0), 2]]


def test_missing_values_become_the_mean_and_are_told_by_a_mask():
    source = source_of(series_of([[1, 5], [np.nan, 7]]), series_of([[3, 9]]))
    assert source.means[0] == 2.0
    assert source.masked == (True, False)
    rows = source.encode(series_of([[np.nan, np.nan], [2.0, 7.0]]))
    assert rows.tolist() == [[0, 0, 0], [0, 0, 1]]  # two values and the mask of the first channel
    assert rows.dtype == np.float32


def test_missing_values_can_be_refused():
    with pytest.raises(DataError, match=r"file.ts:7: a value is missing: step 2, channel 1"):
        source_of(series_of([[1.0], [np.nan]], line=7), missing="refuse")
    source = source_of(series_of([[1.0], [2.0]]), missing="refuse")
    with pytest.raises(DataError, match="a value is missing"):
        source.encode(series_of([[np.nan]]))


def test_other_channels_than_before_are_refused_by_line(wave_run):
    with pytest.raises(DataError, match=r"file.ts:4: .*number of channels.\n  got:      1\n  expected: 2"):
        source_of(series_of([[1, 2]]), series_of([[1]], line=4))
    with pytest.raises(DataError, match="number of channels"):
        Classifier.load(wave_run).predict([np.zeros((3, 1))])


@pytest.mark.parametrize("item", ["a text", [["a"]], np.zeros((2, 2, 2)), [np.inf], None, np.zeros((2, 0))])
def test_what_is_not_a_series_is_refused(wave_run, item):
    with pytest.raises(DataError, match=r"predict: item 1 is not numbers of shape \(T,\) or \(T, C\)"):
        Classifier.load(wave_run).predict([np.zeros((3, 2)), item])


def test_series_files_are_told_by_their_name(quick, tmp_path):
    lines = [":".join(",".join(map(str, channel)) for channel in values.T) + f":{label}" for values, label in waves(60, 1)]
    head = "@problemName toy\n@missing false\n@univariate false\n@dimensions 2\n@classLabel true down up\n@data\n"
    path = tmp_path / "toy.ts.gz"
    path.write_bytes(gzip.compress((head + "\n".join(lines) + "\n").encode()))
    model = Classifier(**quick | {"epochs": 6}).fit(path)
    assert model.evaluate(path)["accuracy"] > 0.9
    assert len(model.read_records(path)) == 60
    assert model.judge(path).places[0] == f"{path}:7"


def test_series_of_a_reader_can_be_given_in_a_list(quick):
    series = [series_of(values, label) for values, label in waves(60, 1)]
    assert Classifier(**quick | {"epochs": 6}).fit(series, series).evaluate(series)["accuracy"] > 0.9


def test_tables_of_steps_are_read_by_their_id(quick, tmp_path):
    rows = [f"s{n},{x},{y},{label}" for n, (values, label) in enumerate(waves(60, 1)) for x, y in values]
    path = tmp_path / "steps.csv"
    path.write_text("name,x,y,label\n" + "\n".join(rows) + "\n")
    model = Classifier(**quick | {"epochs": 6, "id_field": "name"}).fit(path)
    assert model.evaluate(path)["accuracy"] > 0.9
    records = model.read_records(path)
    assert records[2].name == "s2"
    assert model.plain(records[2], model.predict_records(records)[2]).endswith(
        "s2: " + f"{len(records[2].values)} steps of 2 channels"
    )


def test_project_puts_a_linear_layer_before(quick):
    model = Classifier(**quick | {"epochs": 1, "project": True, "embedding_size": 5}).fit(waves(20, 1), waves(8, 2))
    assert model.network_.embedding.weight.shape == (5, 2)


@pytest.mark.parametrize(
    ("data", "options", "expected"),
    [
        ("a.tsv", {}, "text"),
        ("a.TS.gz", {}, "series"),
        ("a.csv", {"id_field": "id"}, "series"),
        ("a.txt", {"source": "series"}, "series"),
        ([("a", "b")], {}, "text"),
        ([([1.0, 2.0], "b")], {}, "series"),
        ([np.zeros(3)], {}, "series"),
        ([[1.0, 2.0]], {}, "series"),
        ([Example("a", "b", "f", 1)], {}, "text"),
    ],
)
def test_the_kind_of_input_is_told_by_the_data(data, options, expected):
    assert source_kind(data, ClassifierOptions(**options)) == expected


# --- several labels ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def set_run(tmp_path_factory, quick):
    out = tmp_path_factory.mktemp("sets") / "run"
    Classifier(**quick | {"epochs": 10}).fit(sets(200, 1), sets(40, 2), out=out)
    return out


def test_several_labels_are_learned_and_may_be_none(set_run):
    model = Classifier.load(set_run)
    scores = model.evaluate(sets(60, 3))
    assert list(scores) == ["micro_f1", "macro_f1", "exact_match", "loss", "count"]
    assert scores["micro_f1"] > 0.9
    answers = model.predict_records(["alpha of beta", "the of"])
    assert [answer["labels"] for answer in answers] == [["alpha", "beta"], []]
    assert list(answers[0]["probabilities"]) == ["alpha", "beta", "gamma"]
    assert model.plain("alpha of beta", answers[0]) == "alpha|beta\talpha of beta"
    json.dumps(answers, allow_nan=False)


def test_several_labels_from_a_file(quick, tmp_path):
    path = tmp_path / "sets.tsv"
    path.write_text("label\ttext\n" + "".join(f"{','.join(labels)}\t{text}\n" for text, labels in sets(120, 1)))
    model = Classifier(**quick | {"epochs": 6, "label_separator": ","}).fit(path, out=tmp_path / "run")
    assert Classifier.load(tmp_path / "run").evaluate(path) == model.evaluate(path)
    assert model.evaluate(path)["micro_f1"] > 0.8
    (tmp_path / "other.tsv").write_text("label\ttext\nalpha\tx\nalpha,bta\ty\n")
    with pytest.raises(DataError, match=r"other.tsv:3: unknown label 'bta'. Did you mean 'beta'\?"):
        model.evaluate(tmp_path / "other.tsv")


def test_no_label_at_all_is_refused(quick):
    with pytest.raises(DataError, match="there are no labels"):
        Classifier(**quick).fit([("a", ()), ("b", ())], [("a", ())])


# --- numbers ----------------------------------------------------------------------------------------------------------


def lengths(count, seed):
    return [(text, float(100 + 10 * sum(word == "alpha" for word in text.split()))) for text, _ in sets(count, seed)]


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_numbers_are_learned_in_their_own_units(quick, loss, tmp_path):
    options = {"epochs": 12, "number_loss": loss, "word_dropout": 0.0, "dropout": 0.0, "summary": "mean"}
    model = Classifier(**quick | options).fit(lengths(200, 1), lengths(40, 2), out=tmp_path / "run")
    scores = model.evaluate(lengths(60, 3))
    assert list(scores) == ["mae", "rmse", "r2", "count"]
    assert scores["r2"] > 0.8
    assert 80 < model.predict(["the of"])[0] < 115 < model.predict(["alpha alpha"])[0] < 140
    again = Classifier.load(tmp_path / "run")
    assert again.predict_records(["alpha"]) == model.predict_records(["alpha"])
    assert list(again.predict_records(["alpha"])[0]["numbers"]) == ["label"]
    assert model.result_.history[0]["valid_mae"] > model.result_.best["valid_mae"]


def test_numbers_from_columns(quick, tmp_path):
    path = tmp_path / "numbers.csv"
    path.write_text("text,x,y\n" + "".join(f"{text},{n},{-n}\n" for text, n in lengths(40, 1)))
    model = Classifier(**quick | {"epochs": 1, "target": "number", "label_field": "x,y"}).fit(path)
    assert model.predict(["alpha", "beta", ""]).shape == (3, 2)
    assert list(model.predict_records(["alpha"])[0]["numbers"]) == ["x", "y"]
    path.write_text("text,x,y\na,1,2\nb,nan,2\n")
    with pytest.raises(DataError, match=r"numbers.csv:3: "):
        model.evaluate(path)


@pytest.mark.parametrize("answer", [float("nan"), float("inf"), "a", None, (1.0, 2.0)])
def test_what_is_not_the_same_finite_numbers_is_refused(quick, answer):
    with pytest.raises(DataError):
        Classifier(**quick | {"target": "number"}).fit([("a", 1.0), ("b", answer)] * 5, [("a", 1.0)])


@pytest.mark.parametrize("options", [{"class_weights": "balanced"}, {"sampling": "balanced"}, {"label_smoothing": 0.1}])
def test_numbers_have_no_classes_to_weigh(quick, options):
    with pytest.raises(ConfigError, match=f"option {next(iter(options))}: only for labels"):
        Classifier(**quick | options).fit(lengths(20, 1), lengths(8, 2))


# --- the targets by themselves ----------------------------------------------------------------------------------------


def examples(*labels):
    return [Example("t", label, "file", n + 1) for n, label in enumerate(labels)]


def test_balanced_weights_and_sampling_make_labels_count_the_same():
    records = examples(*"aaab")
    target = OneTarget.learn(records, ClassifierOptions())
    encoded = np.array([target.encode(record) for record in records])
    head = target.head(ClassifierOptions(class_weights="balanced"), encoded)
    assert head.weights.tolist() == pytest.approx([4 / 6, 2])
    assert target.head(ClassifierOptions(class_weights={"b": 3.0}), encoded).weights.tolist() == [1, 3]
    assert target.head(ClassifierOptions(), encoded).weights is None
    assert target.head(ClassifierOptions(class_weights="balanced"), None).weights is None
    assert target.weights(encoded, "balanced").tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1])
    with pytest.raises(ConfigError, match="unknown label 'c'"):
        target.head(ClassifierOptions(class_weights={"c": 1.0}), encoded)


def test_several_labels_are_balanced_by_their_rarest():
    records = [Example("t", None, "file", 1, labels=labels) for labels in [("a",), ("a", "b"), ("a",), ()]]
    target = SeveralTarget.learn(records, ClassifierOptions())
    encoded = np.array([target.encode(record) for record in records])
    assert encoded.tolist() == [[True, False], [True, True], [True, False], [False, False]]
    assert target.weights(encoded, "balanced").tolist() == pytest.approx([1 / 3, 1, 1 / 3, 1])
    assert target.head(ClassifierOptions(class_weights="balanced"), encoded).weights.tolist() == pytest.approx([1 / 3, 3])


def test_heads_weigh_and_smooth_in_training_only():
    logits, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0, 1, 2])
    head = OneHead([1.0, 2.0, 3.0], 0.3)
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=0.3)
    assert head(logits, labels)[0].item() == pytest.approx((each * torch.tensor([1.0, 2, 3])[labels]).mean().item())
    plain = torch.nn.functional.cross_entropy(logits, labels).item()
    assert head.eval()(logits, labels)[0].item() == pytest.approx(plain)
    assert not head.state_dict()
    several, there = SeveralHead([2.0, 1.0, 1.0]), torch.eye(3).repeat(2, 1)
    loss, sums = several(logits, there)
    assert loss.item() > several.eval()(logits, there)[0].item()
    assert sums["exact_match"] == ((logits > 0) == (there > 0)).all(-1).sum()


def test_f1_of_empty_sets_is_one():
    _, sums = SeveralHead(None)(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    assert sums["f1"].item() == pytest.approx(1 + 2 / 3)
    assert sums["exact_match"].item() == 1


def test_numbers_go_back_to_their_units():
    records = [Example("t", None, "file", n, targets=(n, 7.0)) for n in (1.0, 3.0)]
    target = NumberTarget.learn(records, ClassifierOptions(label_field="x, y"))
    assert (target.names, target.means, target.deviations) == (("x", "y"), (2.0, 7.0), (1.0, 1.0))
    assert target.encode(records[0]) == [-1.0, 0.0]
    assert target.truth(np.array([[-1.0, 0.0]])).tolist() == [[1.0, 7.0]]


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_weights": {"a": -1.0}}, "weight of 'a'"),
        ({"class_weights": "heavy"}, "unknown value 'heavy'"),
        ({"freeze_vectors": True}, "there are no vectors"),
        ({"label_separator": ""}, "cannot be empty"),
        ({"batch_size": "big"}, "option batch_size"),
        ({"batch_size": 0}, "option batch_size: out of range"),
        ({"target": "several_labels"}, "unknown value"),
        ({"weight_drop": 1.0}, "out of range"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Classifier(**options)


@pytest.mark.parametrize(
    "options", [{"recurrent_dropout": 0.3}, {"zoneout": 0.2}, {"weight_drop": 0.3}, {"label_smoothing": 0.1}]
)
def test_regularisers_change_training_and_nothing_else(quick, train_pairs, valid_pairs, options):
    plain = Classifier(**quick | {"epochs": 1}).fit(train_pairs, valid_pairs)
    other = Classifier(**quick | {"epochs": 1} | options).fit(train_pairs, valid_pairs)
    assert not torch.equal(plain.network_.output.weight, other.network_.output.weight)
    assert other.predict_records(["dull film"]) == other.predict_records(["dull film"])


@pytest.mark.parametrize("options", [{"class_weights": "balanced"}, {"class_weights": {"good": 5.0}}, {"sampling": "balanced"}])
def test_weights_of_labels_reach_the_training(quick, train_pairs, valid_pairs, options, tmp_path):
    rare = [pair for n, pair in enumerate(train_pairs) if pair[1] == "bad" or n % 4 == 0]
    plain = Classifier(**quick | {"epochs": 1, "lr": 0.002}).fit(rare, valid_pairs)
    other = Classifier(**quick | {"epochs": 1, "lr": 0.002} | options).fit(rare, valid_pairs, out=tmp_path / "run")
    good = [model.predict_proba(["a film"])[0, 1] for model in (plain, other)]
    assert good[1] > good[0] + 0.005
    assert Classifier.load(tmp_path / "run").predict_records(["a film"]) == other.predict_records(["a film"])


def test_batch_size_is_found_kept_and_used_when_a_run_goes_on(quick, train_pairs, valid_pairs, tmp_path):
    options = quick | {"epochs": 1, "batch_size": "auto", "memory_limit": 4000}
    Classifier(**options).fit(train_pairs, valid_pairs, out=tmp_path / "run")
    assert read_json(tmp_path / "run" / "batches.json") == {"batch_size": 64}  # the largest power of two below 120
    again = Classifier(**options | {"epochs": 2}).fit(train_pairs, valid_pairs, out=tmp_path / "run", resume=True)
    assert again.inputs_.batch_size == 64
    assert again.result_.epochs_run == 2
    (tmp_path / "run" / "batches.json").write_text('{"batch_size": "x"}')
    with pytest.raises(CheckpointError, match=r"batches.json: not a saved batch size"):
        Classifier.load(tmp_path / "run")


# --- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["byte", "subword"])
def test_bytes_and_subwords(quick, train_pairs, valid_pairs, unit, tmp_path):
    options = quick | {"unit": unit, "vocab_size": 270, "epochs": 6, "word_dropout": 0.0}
    model = Classifier(**options).fit(train_pairs, valid_pairs, out=tmp_path / "run")
    assert model.evaluate(valid_pairs)["accuracy"] > 0.8
    again = Classifier.load(tmp_path / "run")
    assert again.predict_records(["a dull film"]) == model.predict_records(["a dull film"])


def vectors_file(folder):
    path = folder / "vectors.txt"
    path.write_text("3 3\nfilm 1 2 3\ndull -1 -2 -3\nnever 9 9 9\n")
    return path


def test_vectors_start_the_embedding_and_can_stay(quick, train_pairs, valid_pairs, tmp_path, capfd):
    options = quick | {"epochs": 1, "vectors": str(vectors_file(tmp_path)), "freeze_vectors": True, "progress": True}
    model = Classifier(**options).fit(train_pairs, valid_pairs, out=tmp_path / "run")
    assert "2 of " in capfd.readouterr().err
    embedding, encode = model.network_.embedding, model.inputs_.source.vocabulary.encode
    assert embedding.weight[encode(["film", "dull"])].tolist() == [[1, 2, 3], [-1, -2, -3]]
    (tmp_path / "vectors.txt").unlink()  # the weights have them
    again = Classifier.load(tmp_path / "run")
    assert torch.equal(again.network_.embedding.weight, embedding.weight)
    assert again.inputs_.source.coverage == model.inputs_.source.coverage
    trained = Classifier(**options | {"freeze_vectors": False, "vectors": str(vectors_file(tmp_path))})
    trained.fit(train_pairs, valid_pairs)
    assert not torch.equal(trained.network_.embedding.weight[encode(["film"])], embedding.weight[encode(["film"])])


def test_the_embedding_starts_with_the_deviation_asked_for(quick, train_pairs):
    for scale in (1.0, 0.1):
        model = Classifier(**quick | {"embedding_scale": scale, "embedding_size": 400})
        embedding = model._build(model._prepare(train_pairs, train_pairs, None).inputs).embedding
        assert embedding.weight[1:].std().item() == pytest.approx(scale, rel=0.1)
        assert not embedding.weight[0].any()


def test_word_dropout_leaves_padding_and_evaluation_alone():
    embedding, tokens = TokenEmbedding(9, 4, word_dropout=0.9), torch.tensor([[5, 6, 7, 8, 0, 0]])
    torch.manual_seed(1)
    dropped = embedding(tokens)
    assert (dropped[0, :4] == embedding.weight[1]).all(-1).any()
    assert not dropped[0, 4:].any()
    assert torch.equal(embedding.eval()(tokens), embedding.weight[tokens])


# --- large files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [False, True])
def test_a_file_that_is_not_kept_trains_the_same_model(quick, tmp_path, given):
    draw = random.Random(1)
    path, valid = tmp_path / "large.tsv", tmp_path / "valid.tsv"
    for file, count in ((path, 2500), (valid, 300)):
        pairs = [(" ".join(draw.choice(WORDS) for _ in range(12)), draw.choice(["x", "y", "z"])) for _ in range(count)]
        file.write_text("label\ttext\n" + "".join(f"{label}\t{text}\n" for text, label in pairs))
    options = quick | {"epochs": 1, "hidden_size": 4}
    parts = (path, valid) if given else (path,)
    kept = Classifier(**options).fit(*parts, out=tmp_path / "kept")
    streamed = Classifier(**options | {"memory_limit": 1}).fit(*parts, out=tmp_path / "streamed")
    for name, tensor in kept.network_.state_dict().items():
        assert torch.equal(tensor, streamed.network_.state_dict()[name]), name
    assert streamed.scores_ == kept.scores_
    for name in ("vocabulary.json", "labels.json", "tokenizer.json"):
        assert (tmp_path / "streamed" / name).read_bytes() == (tmp_path / "kept" / name).read_bytes()
    found, whole = streamed.judge(path), kept.judge(path)
    assert found.attention is None
    assert whole.attention is not None
    assert sum(map(bool, found.texts)) == 1000  # the worst; the others stay on disk
    worst = int(np.argmax(whole.losses))
    assert (found.texts[worst], found.places[worst]) == (whole.texts[worst], whole.places[worst])


def test_sets_of_labels_that_are_unique_are_held_out_too_but_no_label_is_lost():
    groups = [(f"a{n % 7}", f"b{n % 11}", f"c{n % 13}") for n in range(200)] + [("alone",), ()]
    held = held_places(groups, seed=1)
    assert 15 <= held.sum() <= 25
    assert not held[200]
    left = {label for group, out in zip(groups, held, strict=True) if not out for label in group}
    assert left == {label for group in groups for label in group}
    assert (held_places(groups, seed=1) == held).all()
    assert (held_places(groups, seed=2) != held).any()


# --- behaviours -------------------------------------------------------------------------------------------------------


def test_a_label_seen_in_validation_only_is_named_with_its_line(quick, train_pairs, tmp_path):
    valid = tmp_path / "valid.tsv"
    valid.write_text("label\ttext\ngood\tfilm\nbed\tplot\n")
    with pytest.raises(DataError, match=r"valid.tsv:3: unknown label 'bed'. Did you mean 'bad'\?"):
        Classifier(**quick).fit(train_pairs, valid)


def test_one_class_only_is_refused_with_the_file(quick, tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text("label\ttext\n" + "good\ta film\n" * 20)
    with pytest.raises(DataError, match=r"train.tsv: the training data hold only one label"):
        Classifier(**quick).fit(path)


def test_empty_texts_are_answered_but_refused_in_a_file(model, tmp_path):
    assert model.evaluate([("", "good"), ("a moving film", "good")])["count"] == 2
    path = tmp_path / "test.tsv"
    path.write_text("label\ttext\ngood\t\n")
    with pytest.raises(DataError, match=r"test.tsv:2: the text is empty"):
        model.evaluate(path)


def test_encode_gives_what_the_output_sees(model, wave_run):
    vectors = model.encode(["a moving film", "dull", ""])
    assert vectors.shape == (3, 16)
    assert vectors.dtype == np.float32
    logits = torch.from_numpy(vectors) @ model.network_.output.weight.T + model.network_.output.bias
    chances = torch.softmax(logits, -1).detach().numpy()
    assert chances == pytest.approx(model.predict_proba(["a moving film", "dull", ""]), abs=1e-5)
    assert not vectors[2].any()
    assert model.encode([]).shape == (0, 16)
    assert Classifier.load(wave_run).encode([np.zeros((3, 2))]).shape == (1, 16)


def test_an_evaluation_tells_each_item(model, tmp_path):
    path = tmp_path / "test.tsv"
    path.write_text("label\ttext\ngood\ta moving film\nbad\tdull\n")
    found = model.judge(path)
    assert (found.kind, found.labels, found.texts) == ("one", ("bad", "good"), ("a moving film", "dull"))
    assert found.places == (f"{path}:2", f"{path}:3")
    assert found.lengths.tolist() == [3, 1]
    assert [token for token, _ in found.attention[0]] == ["a", "moving", "film"]
    assert found.probabilities == pytest.approx(model.predict_proba(list(found.texts)), abs=1e-6)
    assert found.scores() == model.evaluate(path)


@pytest.mark.parametrize(
    "content", ["null", "{}", '{"means": [1], "deviations": [0], "masked": [false], "refuse": false}', "[1]"]
)
def test_a_damaged_description_of_series_is_refused(tmp_path, content):
    (tmp_path / "series.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"series.json: not a saved description"):
        recall_source(tmp_path, "auto")


@pytest.mark.parametrize(
    "content",
    [
        "null",
        "{}",
        '{"kind": "x"}',
        '{"kind": "number"}',
        '{"kind": "number", "names": ["a"], "means": [1], "deviations": [-1]}',
    ],
)
def test_a_damaged_description_of_targets_is_refused(tmp_path, content):
    (tmp_path / "targets.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"targets.json: not "):
        recall_target(tmp_path, "auto")


def test_a_directory_of_the_first_version_still_loads(run_dir, model, tmp_path):
    """It has none of the options that came later, and no other files than these."""
    old = ["cell", "cell_options", "hidden_size", "num_layers", "bidirectional", "embedding_size", "dropout", "word_dropout"]
    old += ["summary", "engine", "unit", "lowercase", "min_count", "max_vocab", "batch_size", "format", "text_field"]
    lines = ["task: classify", "carousel: 0.1.0", "custom_cell: false"]
    lines += [line for line in (run_dir / "config.yaml").read_text().splitlines() if line.split(":")[0] in old]
    (tmp_path / "config.yaml").write_text("\n".join(lines) + "\n")
    for name in ("labels.json", "vocabulary.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_bytes((run_dir / name).read_bytes())
    assert Classifier.load(tmp_path).predict_records(["a dull film"]) == model.predict_records(["a dull film"])
