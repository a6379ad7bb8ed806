"""The classifier in Python: what it learns, says, saves, refuses."""

import json
import re
import shutil
from collections import Counter

import pytest
import torch

from carousel.cells import CELLS
from carousel.data import Example
from carousel.errors import CheckpointError, ConfigError, DataError, NotFittedError
from carousel.graph import Cell, sigmoid, tanh
from carousel.tasks import Classifier, Estimator, load_task
from carousel.tasks.splits import hold_out

TEXTS = ["a moving film", "", "dull", "words never seen", "the plot is dull"]


class MinimalGatedUnit(Cell):
    """Zhou et al. (2016), "Minimal Gated Unit for Recurrent Neural Networks"."""

    state = ("h",)
    gate_bias: float = 0.0

    def step(self, x, h):
        f = sigmoid(self.affine("f", x, h) + self.gate_bias)
        return (1 - f) * h + f * tanh(self.affine("h", x, f * h))


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_learns_which_word_decides(model, valid_pairs):
    scores = model.evaluate(valid_pairs)
    assert list(scores) == ["accuracy", "macro_f1", "loss", "count"]
    assert scores["accuracy"] > 0.95
    assert scores["macro_f1"] > 0.95
    assert 0 < scores["loss"] < 0.3
    assert scores["count"] == 40


def test_predictions_are_plain_records_in_order(model):
    answers = model.predict_records(TEXTS)
    for text, answer in zip(TEXTS, answers, strict=True):
        assert list(answer) == ["label", "probabilities", "attention"]
        assert list(answer["probabilities"]) == ["bad", "good"]
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-9)
        assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
        assert [token for token, _ in answer["attention"]] == text.split()
        if text:
            assert sum(weight for _, weight in answer["attention"]) == pytest.approx(1, abs=1e-5)
    assert [answers[0]["label"], answers[2]["label"], answers[4]["label"]] == ["good", "bad", "bad"]
    json.dumps(answers, allow_nan=False)


def test_a_text_alone_equals_itself_among_others(model):
    together = model.predict_records(TEXTS)
    for text, answer in zip(TEXTS, together, strict=True):
        alone = model.predict_records([text])[0]
        assert alone["probabilities"]["bad"] == pytest.approx(answer["probabilities"]["bad"], abs=1e-6)


def test_nothing_in_nothing_out(model):
    assert model.predict_records([]) == []


@pytest.mark.parametrize(
    ("texts", "message"),
    [("one text", r"got:      one text\n  try:      predict\(\[text\]\)"), (["a", None], "item 1 is not a text")],
)
def test_predict_refuses_what_is_not_a_list_of_texts(model, texts, message):
    with pytest.raises(DataError, match=message):
        model.predict_records(texts)


def test_saved_model_predicts_the_same(model, tmp_path):
    expected = model.predict_records(TEXTS)
    out = model.save(tmp_path / "copy")
    assert sorted(path.name for path in out.iterdir()) == [
        "config.yaml",
        "labels.json",
        "model.safetensors",
        "tokenizer.json",
        "vocabulary.json",
    ]
    assert Classifier.load(out).predict_records(TEXTS) == expected
    with pytest.raises(ConfigError, match="a run is already there"):
        model.save(out)
    before = tree(out)
    model.save(out, overwrite=True)
    assert tree(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_run_directory_holds_everything_and_no_pickle(run_dir):
    files = set(tree(run_dir))
    assert {
        "config.yaml",
        "model.safetensors",
        "vocabulary.json",
        "labels.json",
        "tokenizer.json",
        "metrics.csv",
        "learning_curve.png",
        "confusion.png",
        "best/model.safetensors",
        "last/model.safetensors",
    } <= files
    assert not [name for name in files if re.search(r"\.(ckpt|pt|pth|pkl|pickle|bin|tmp)$", name)]


def test_same_seed_same_model(quick, train_pairs, valid_pairs):
    first, second = (Classifier(**quick | {"epochs": 1}).fit(train_pairs, valid_pairs) for _ in range(2))
    for one, other in zip(first.network_.parameters(), second.network_.parameters(), strict=True):
        assert torch.equal(one, other)
    third = Classifier(**quick | {"epochs": 1, "seed": 2}).fit(train_pairs, valid_pairs)
    assert not torch.equal(first.network_.output.weight, third.network_.output.weight)


def test_fit_leaves_the_generator_of_its_caller_alone(quick, train_pairs, valid_pairs):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Classifier(**quick | {"epochs": 1}).fit(train_pairs, valid_pairs)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("summary", ["last", "mean", "max"])
def test_every_summary_learns(quick, train_pairs, valid_pairs, summary):
    model = Classifier(**quick | {"summary": summary, "word_dropout": 0.05}).fit(train_pairs, valid_pairs)
    assert model.evaluate(valid_pairs)["accuracy"] > 0.8
    assert "attention" not in model.predict_records(["a dull film", ""])[0]


def test_deep_one_way_characters_with_another_cell(quick, train_pairs, valid_pairs):
    options = {"cell": "gru", "num_layers": 2, "bidirectional": False, "unit": "char", "epochs": 1}
    model = Classifier(**quick | options).fit(train_pairs, valid_pairs)
    assert [token for token, _ in model.predict_records(["dull x"])[0]["attention"]] == list("dull x")


def test_chinese_is_read_by_characters(quick):
    pairs = [("房间很大", "1"), ("太差了", "0"), ("早餐不错", "1"), ("非常吵", "0")] * 5
    model = Classifier(**quick | {"epochs": 1}).fit(pairs, pairs)
    assert [token for token, _ in model.predict_records(["房间大"])[0]["attention"]] == list("房间大")


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_of_the_library_reads_a_text_or_says_why_not(quick, train_pairs, name):
    model = Classifier(**quick | {"cell": name})
    if name in ("conv_lstm", "gru_d", "attention_gru"):
        with pytest.raises(ConfigError, match=f"option cell: {name} cannot read a text"):
            model.fit("no such file")
        return
    prepared = model._prepare(train_pairs, train_pairs, None)
    network = model._build(prepared.inputs)
    measured = network.measure(next(iter(prepared.train)))
    measured.loss.backward()
    assert measured.loss.isfinite()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


def test_own_cell_trains_saves_loads_predicts(quick, train_pairs, valid_pairs, tmp_path):
    options = quick | {"cell": MinimalGatedUnit, "cell_options": {"gate_bias": 1.0}}
    model = Classifier(**options).fit(train_pairs, valid_pairs, out=tmp_path / "run")
    assert model.evaluate(valid_pairs)["accuracy"] > 0.9
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert "cell: MinimalGatedUnit\ncell_options:\n  gate_bias: 1.0\n" in config
    assert "custom_cell: true" in config
    again = Classifier.load(tmp_path / "run", MinimalGatedUnit)
    assert again.cell == MinimalGatedUnit(gate_bias=1.0)
    assert again.predict_records(TEXTS) == model.predict_records(TEXTS)
    again = Classifier.load(tmp_path / "run", cell=MinimalGatedUnit(gate_bias=1.0))
    assert again.predict_records(TEXTS) == model.predict_records(TEXTS)


def test_own_cell_must_be_given_and_be_the_same(quick, train_pairs, valid_pairs, tmp_path):
    model = Classifier(**quick | {"cell": MinimalGatedUnit, "epochs": 1}).fit(train_pairs, valid_pairs)
    saved = model.save(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"config.yaml:\d+: .*own cell 'MinimalGatedUnit'.\n.*--code FILE.py --cell NAME"):
        Classifier.load(saved)
    with pytest.raises(ConfigError, match=r"another cell.\n  got:      lstm\n  expected: MinimalGatedUnit"):
        Classifier.load(saved, cell="lstm")

    def changed(self, x, h):
        f = sigmoid(self.affine("f", x, h) + self.gate_bias)
        return f * h + (1 - f) * tanh(self.affine("h", x, f * h))

    other = type("MinimalGatedUnit", (Cell,), {"step": changed, "gate_bias": 0.0, "__annotations__": {"gate_bias": float}})
    with pytest.raises(ConfigError, match="the equations of 'MinimalGatedUnit' are not those"):
        Classifier.load(saved, cell=other)


def test_a_cell_of_the_library_needs_no_class(run_dir):
    with pytest.raises(ConfigError, match="trained with the cell 'lstm'; leave out your own"):
        Classifier.load(run_dir, cell=MinimalGatedUnit)


@pytest.mark.parametrize("spec", ["os:system", "my_module.MyCell", "./cell.py", "MyCell"])
def test_saved_name_of_a_cell_is_never_imported(run_dir, tmp_path, spec):
    copy = shutil.copytree(run_dir, tmp_path / "run")
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("cell: lstm", f"cell: {spec}"))
    with pytest.raises(ConfigError, match=r"config.yaml:\d+: "):
        Classifier.load(copy)


def test_before_fit_nothing_can_be_asked():
    for ask in (
        lambda m: m.predict_records(["a"]),
        lambda m: m.evaluate([("a", "b")]),
        lambda m: m.save("nowhere"),
    ):
        with pytest.raises(NotFittedError, match=r"not fitted yet.\n  try:      Classifier\(...\).fit\(train\)"):
            ask(Classifier())


def test_label_not_seen_in_training_names_file_line_and_the_nearest(model, tmp_path):
    file = tmp_path / "test.tsv"
    file.write_text("label\ttext\ngood\ta film\ngodo\ta plot\n")
    with pytest.raises(DataError, match=r"test.tsv:3: unknown label 'godo'. Did you mean 'good'\?"):
        model.evaluate(file)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "the training data: the list is empty"),
        ([("a", "x"), "b"], "the training data: item 1 is not a pair"),
        ([("a", "x"), ("b", 1)], "the training data: item 1 is not a pair"),
        ([("a", "x")] * 5, "only one label.\n  got:      'x'"),
        ([("a", "x"), ("b", "y")], "too few examples to hold out"),
    ],
)
def test_bad_lists_are_refused(quick, pairs, message):
    with pytest.raises(DataError, match=message):
        Classifier(**quick).fit(pairs)


def test_held_out_part_is_a_tenth_of_each_label_and_always_the_same():
    examples = [Example(f"t{i}", "rare" if i % 10 == 0 else "often", "file", i) for i in range(200)]
    examples.append(Example("alone", "single", "file", 200))
    rest, held = hold_out(examples, seed=1)
    assert Counter(example.label for example in held) == {"often": 18, "rare": 2}
    assert sorted([*rest, *held], key=lambda e: e.line) == examples
    assert hold_out(examples, seed=1) == (rest, held)
    assert hold_out(examples, seed=2) != (rest, held)


def test_without_validation_data_the_output_says_what_is_held_out(quick, train_pairs, capfd):
    Classifier(**quick | {"epochs": 1, "progress": True}).fit(train_pairs)
    assert "No validation data given: 12 of 120 examples are held out for it." in capfd.readouterr().err


def test_existing_run_is_refused_before_any_work(quick, run_dir):
    before = tree(run_dir)
    with pytest.raises(ConfigError, match="a run is already there"):
        Classifier(**quick).fit("no such file", out=run_dir)
    assert tree(run_dir) == before


@pytest.mark.parametrize("options", [{}, {"trainer": {"precision": "nonsense"}}])
def test_failed_overwrite_leaves_the_old_run(quick, run_dir, train_pairs, tmp_path, options):
    copy = shutil.copytree(run_dir, tmp_path / "run")
    before = tree(copy)
    data = train_pairs if options else tmp_path / "missing.tsv"
    with pytest.raises((DataError, ConfigError)):
        Classifier(**quick | options).fit(data, train_pairs, out=copy, overwrite=True)
    assert tree(copy) == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_failed_fit_leaves_nothing(quick, train_pairs, tmp_path):
    with pytest.raises(ConfigError):
        Classifier(**quick | {"trainer": {"precision": "nonsense"}}).fit(train_pairs, train_pairs, out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_overwrite_replaces_the_run(quick, run_dir, train_pairs, valid_pairs, tmp_path):
    copy = shutil.copytree(run_dir, tmp_path / "run")
    (copy / "confusion-old.png").touch()
    Classifier(**quick | {"epochs": 1, "hidden_size": 5}).fit(train_pairs, valid_pairs, out=copy, overwrite=True)
    assert not (copy / "confusion-old.png").exists()
    assert Classifier.load(copy).options.hidden_size == 5
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_resumed_run_equals_an_uninterrupted_one(quick, train_pairs, valid_pairs, tmp_path):
    whole = Classifier(**quick).fit(train_pairs, valid_pairs, out=tmp_path / "whole")
    Classifier(**quick | {"epochs": 2}).fit(train_pairs, valid_pairs, out=tmp_path / "parts")
    parts = Classifier(**quick).fit(train_pairs, valid_pairs, out=tmp_path / "parts", resume=True)
    assert parts.result_.epochs_run == whole.result_.epochs_run == 4
    for name, tensor in whole.network_.state_dict().items():
        assert torch.equal(tensor, parts.network_.state_dict()[name]), name
    assert Classifier.load(tmp_path / "parts").get_params()["epochs"] == 4


def test_resume_refuses_another_network(quick, run_dir, train_pairs, valid_pairs):
    with pytest.raises(ConfigError, match=r"option hidden_size: cannot change .*\n  got:      9\n  expected: 8"):
        Classifier(**quick | {"hidden_size": 9}).fit(train_pairs, valid_pairs, out=run_dir, resume=True)
    with pytest.raises(ConfigError, match="resume needs the run directory"):
        Classifier(**quick).fit(train_pairs, resume=True)


def test_run_whose_training_died_still_loads_its_best_checkpoint(run_dir, model, tmp_path):
    copy = shutil.copytree(run_dir, tmp_path / "run")
    (copy / "model.safetensors").unlink()
    assert Classifier.load(copy).predict_records(TEXTS) == model.predict_records(TEXTS)
    shutil.rmtree(copy / "best")
    with pytest.raises(CheckpointError, match="holds no trained weights"):
        Classifier.load(copy)


@pytest.mark.parametrize("name", ["config.yaml", "labels.json", "vocabulary.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{", b"null\n", b"\xff\xfe"])
def test_damaged_run_is_one_error_that_names_the_file(run_dir, tmp_path, name, content):
    copy = shutil.copytree(run_dir, tmp_path / "run")
    (copy / name).write_bytes(content)
    with pytest.raises((CheckpointError, ConfigError, DataError)) as caught:
        Classifier.load(copy)
    assert name.split(".")[0] in str(caught.value) or "run of the task None" in str(caught.value)


def test_weights_of_another_network_do_not_load(run_dir, tmp_path):
    copy = shutil.copytree(run_dir, tmp_path / "run")
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("hidden_size: 8", "hidden_size: 9"))
    with pytest.raises(CheckpointError, match=r"does not fit the configuration"):
        Classifier.load(copy)


def test_what_is_not_a_run_does_not_load(tmp_path):
    with pytest.raises(CheckpointError, match="not a run directory"):
        Classifier.load(tmp_path)


def test_registry_gives_the_class():
    assert load_task("classify") is Classifier
    assert issubclass(Classifier, Estimator)
    with pytest.raises(ConfigError, match=r"unknown task 'clasify'. Did you mean 'classify'\?"):
        load_task("clasify")
