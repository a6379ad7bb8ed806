"""The classifier under scikit-learn: its verbs, its tools, and its own checks of estimators."""

import copy
import pickle
import subprocess
import sys
import warnings
from functools import partial
from unittest import SkipTest

import numpy as np
import pytest
from sklearn import model_selection
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import DataConversionWarning
from sklearn.exceptions import NotFittedError as TheirNotFittedError
from sklearn.metrics import r2_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import check_is_fitted

from carousel.errors import ConfigError, DataError, NotFittedError
from carousel.tasks import Classifier
from carousel.tasks.labels import LabelForm, fit_arguments, form_of
from tasks.conftest import QUICK, sentences

TEXTS, WORDS = map(list, zip(*sentences(120, seed=1), strict=True))
NUMBERS = [{"bad": 0, "good": 1}[word] for word in WORDS]


def small(**options):
    return Classifier(**QUICK | {"epochs": 3, "lr": 0.05} | options)


@pytest.fixture(scope="module")
def fitted():
    return small().fit(TEXTS, WORDS)


# --- verbs ------------------------------------------------------------------------------------------------------------


def test_fit_with_labels_apart_is_fit_with_pairs(fitted):
    assert fitted.score(TEXTS, WORDS) > 0.95
    pairs = small().fit(list(zip(TEXTS, WORDS, strict=True)))
    assert np.array_equal(fitted.predict_proba(TEXTS), pairs.predict_proba(TEXTS))
    assert fitted.scores_ == pairs.scores_


def test_answers_agree_with_each_other(fitted):
    answers, chances = fitted.predict(TEXTS), fitted.predict_proba(TEXTS)
    assert answers.shape == (120,)
    assert chances.shape == (120, 2)
    assert chances.dtype == np.float64
    assert np.allclose(chances.sum(axis=1), 1)
    assert list(fitted.classes_) == ["bad", "good"]
    assert np.array_equal(fitted.classes_[chances.argmax(axis=1)], answers)
    records = fitted.predict_records(TEXTS)
    assert [record["label"] for record in records] == answers.tolist()
    assert np.allclose([[record["probabilities"][name] for name in fitted.classes_] for record in records], chances, atol=1e-6)
    assert fitted.score(TEXTS, WORDS) == pytest.approx(np.mean(answers == np.array(WORDS)))
    weights = (answers == np.array(WORDS)).astype(float) + 1e-9
    assert fitted.score(TEXTS, WORDS, sample_weight=weights) == pytest.approx(1)


def test_nothing_in_nothing_out(fitted):
    assert fitted.predict([]).shape == (0,)
    assert fitted.predict_proba([]).shape == (0, 2)
    assert fitted.encode([]).shape[0] == 0


def test_a_vector_for_each_text(fitted):
    vectors = fitted.encode(["a moving film", "dull", ""])
    assert vectors.shape == (3, 16)  # both directions
    assert vectors.dtype == np.float32
    assert np.allclose(fitted.encode(["dull"]), vectors[1:2], atol=1e-6)
    assert not np.allclose(vectors[0], vectors[1])


@pytest.mark.parametrize(
    ("labels", "kind", "classes"),
    [
        (NUMBERS, np.integer, [0, 1]),
        (np.array(NUMBERS, dtype=np.int8), np.integer, [0, 1]),
        ([10 - 9 * n for n in NUMBERS], np.integer, [1, 10]),
        ([float(n) for n in NUMBERS], np.floating, [0.0, 1.0]),
        (np.array(NUMBERS) > 0, np.bool_, [False, True]),
        (["10" if n else "9" for n in NUMBERS], np.str_, ["10", "9"]),
        (np.array(WORDS, dtype=object), np.str_, ["bad", "good"]),
    ],
)
def test_labels_come_back_as_they_were_given(labels, kind, classes, tmp_path):
    model = small(epochs=2).fit(np.array(TEXTS), labels, out=tmp_path / "run")
    assert model.classes_.tolist() == classes
    assert np.array_equal(model.classes_, np.unique(labels))
    for each in (model, Classifier.load(tmp_path / "run"), Classifier.load(model.save(tmp_path / "copy"))):
        answers = each.predict(TEXTS)
        assert issubclass(answers.dtype.type, kind)
        assert each.score(TEXTS, labels) > 0.9
        assert np.array_equal(each.classes_[each.predict_proba(TEXTS).argmax(axis=1)], answers)


def test_validation_data_beside_labels():
    other, words = map(list, zip(*sentences(30, seed=5), strict=True))
    model = small(epochs=1).fit(TEXTS, WORDS, valid=(other, words))
    assert model.scores_["count"] == 30
    assert small(epochs=1).fit(TEXTS, WORDS, valid=list(zip(other, words, strict=True))).scores_ == model.scores_
    with pytest.raises(DataError, match="of another type"):
        small().fit(TEXTS, WORDS, valid=(other, [1] * 30))
    with pytest.raises(DataError, match="given twice"):
        small().fit([("a", "b")], [("a", "b")], valid=[("a", "b")])


def test_a_resumed_run_keeps_the_type_of_labels(tmp_path):
    small(epochs=1).fit(TEXTS, NUMBERS, out=tmp_path / "run")
    model = small(epochs=2).fit(TEXTS, NUMBERS, out=tmp_path / "run", resume=True)
    assert model.classes_.tolist() == [0, 1]
    assert Classifier.load(tmp_path / "run").classes_.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (TEXTS, WORDS[:-1], "not of one length"),
        (TEXTS, [*WORDS[:-1], 3], "Unknown label type"),
        (TEXTS, [0.5] * 120, "continuous"),
        (TEXTS, [float("nan")] * 120, "NaN"),
        (TEXTS, [None] * 120, "Unknown label type"),
        (TEXTS, ["same"] * 120, "only one label"),
        ([], [], "none"),
        (TEXTS, 3, "not a list"),
    ],
)
def test_impossible_labels_are_refused(X, y, message):
    with pytest.raises(DataError, match=message):
        small().fit(X, y)


def test_score_refuses_labels_of_another_type(fitted):
    with pytest.raises(DataError, match="another type"):
        fitted.score(TEXTS, NUMBERS)
    with pytest.raises(DataError, match="one length"):
        fitted.score(TEXTS, WORDS[:3])


@pytest.mark.parametrize("verb", ["predict", "predict_proba"])
def test_before_fitting(verb):
    model = small()
    with pytest.raises(NotFittedError, match=r"Classifier\(...\).fit"):
        getattr(model, verb)(TEXTS)
    with pytest.raises(TheirNotFittedError):
        getattr(model, verb)(TEXTS)
    with pytest.raises(TheirNotFittedError):
        check_is_fitted(model)
    assert not hasattr(model, "classes_")
    with pytest.raises(DataError, match="a list of items"):
        getattr(small(epochs=1).fit(TEXTS[:20], WORDS[:20]), verb)("one text")


def test_the_forms_of_labels():
    assert form_of([["a"], [], ["b", "a"]], numbers=False) == (LabelForm("sets"), [["a"], [], ["b", "a"]])
    assert form_of(np.eye(3, dtype=int), numbers=False)[0] == LabelForm("matrix", 3)
    assert form_of([1, 2.5], numbers=True)[0] == LabelForm("number")
    with pytest.warns(DataConversionWarning, match="column-vector"):
        assert form_of([[1], [2]], numbers=False) == (LabelForm("int"), [1, 2])
    for form in (LabelForm(), LabelForm("int"), LabelForm("matrix", 12)):
        assert LabelForm.parse(str(form)) == form
    for text in (None, 3, "", "matrix", "int 3", "evil", "matrix x"):
        assert LabelForm.parse(text) is None
    train, _, _ = fit_arguments(["a", "b"], [{"y", "x"}, set()], None, numbers=False)
    assert train == [("a", ("x", "y")), ("b", ())]
    train, _, form = fit_arguments(["a", "b"], [[0, 1, 1], [0, 0, 0]], None, numbers=False)
    assert (train, form) == ([("a", ("1", "2")), ("b", ())], LabelForm("matrix", 3))
    assert LabelForm("int").back(["1", "x"]).tolist() == ["1", "x"]  # a file that somebody changed


def test_several_labels_as_rows_and_as_sets(tmp_path):
    rows = np.array([[n, 0, 1 - n] for n in NUMBERS])  # the second label never occurs
    rows[0] = 0  # and one text has none
    model = small(target="several", epochs=4).fit(TEXTS, rows, out=tmp_path / "run")
    assert model.predict_proba(TEXTS).shape == (120, 3)
    assert (model.predict_proba(TEXTS)[:, 1] == 0).all()
    assert model.classes_.tolist() == [0, 1, 2]
    for each in (model, Classifier.load(tmp_path / "run")):
        answers = each.predict(TEXTS)
        assert answers.shape == (120, 3)
        assert each.score(TEXTS, rows) == pytest.approx((answers == rows).all(axis=1).mean())
        assert each.score(TEXTS, rows) > 0.8
    sets = [{word, "any"} for word in WORDS]
    model = small(target="several", epochs=4).fit(TEXTS, sets)
    assert model.score(TEXTS, sets) > 0.8
    assert model.predict(["a moving film"]).tolist() == [("any", "good")]
    assert model.classes_.tolist() == ["any", "bad", "good"]
    assert model.__sklearn_tags__().classifier_tags.multi_label


def test_numbers():
    lengths = np.array([float(len(text.split())) for text in TEXTS])
    model = small(target="number", epochs=8, summary="last", unit="word")
    assert is_regressor(model)
    model.fit(TEXTS, lengths)
    answers = model.predict(TEXTS)
    assert answers.shape == (120,)
    assert model.score(TEXTS, lengths) == pytest.approx(r2_score(lengths, answers))
    weights = np.arange(120) % 3 + 0.5
    assert model.score(TEXTS, lengths, weights) == pytest.approx(r2_score(lengths, answers, sample_weight=weights))
    assert model.score(TEXTS, lengths) > 0.5
    assert not hasattr(model, "classes_")
    with pytest.raises(ConfigError, match="numbers, not labels"):
        model.predict_proba(TEXTS)
    two = np.stack([lengths, -lengths], axis=1)
    both = small(target="number").fit(TEXTS, two)
    assert both.predict(TEXTS).shape == (120, 2)
    assert both.score(TEXTS, two) == pytest.approx(r2_score(two, both.predict(TEXTS)))


# --- tools ------------------------------------------------------------------------------------------------------------


def test_clone_gives_the_same_objects_and_nothing_fitted(fitted):
    options = {"forget_bias": 0.5}
    model = small(cell_options=options, hidden_size=np.int64(7), lr=np.float64(0.01))
    assert model.get_params()["cell_options"] is options
    assert type(model.get_params()["hidden_size"]) is np.int64
    assert model.options.hidden_size == 7
    assert type(model.options.hidden_size) is int
    again = clone(model)
    assert again.get_params() == model.get_params()
    assert again.cell == model.cell
    with pytest.raises(TheirNotFittedError):
        check_is_fitted(clone(fitted))
    check_is_fitted(fitted)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_and_pickles(fitted, copied):
    plain = copied(small(cell="gru", num_layers=2))
    assert plain.get_params() == small(cell="gru", num_layers=2).get_params()
    same = copied(fitted)
    assert np.array_equal(same.predict_proba(TEXTS), fitted.predict_proba(TEXTS))
    assert same.result_ == fitted.result_


def test_what_was_changed_is_shown():
    assert repr(Classifier()) == "Classifier()"
    assert repr(Classifier(hidden_size=3, lr=0.1)) == "Classifier(hidden_size=3, lr=0.1)"


def test_tags():
    assert is_classifier(Classifier())
    assert not is_regressor(Classifier())
    tags = Classifier().__sklearn_tags__()
    assert tags.input_tags.string
    assert tags.target_tags.required
    assert tags.classifier_tags.multi_class


def test_cross_validation_scores():
    found = model_selection.cross_val_score(small(), TEXTS, WORDS, cv=3)
    assert found.shape == (3,)
    assert found.min() > 0.8
    loss = model_selection.cross_val_score(small(), TEXTS, NUMBERS, cv=2, scoring="neg_log_loss")
    assert (loss > -0.6).all()
    chances = model_selection.cross_val_predict(small(), TEXTS, WORDS, cv=2, method="predict_proba")
    assert (chances.argmax(axis=1) == NUMBERS).mean() > 0.8


def test_grid_search_over_options():
    search = model_selection.GridSearchCV(
        small(), {"hidden_size": np.arange(4, 9, 4), "lr": np.array([1e-6, 0.05])}, cv=2, error_score="raise"
    )
    search.fit(TEXTS, WORDS)
    assert search.best_params_["lr"] == 0.05
    assert search.best_score_ > 0.8
    assert search.best_estimator_.options.hidden_size in (4, 8)
    assert search.predict(["a moving film", "dull"]).tolist() == ["good", "bad"]
    assert search.score(TEXTS, WORDS) > 0.9


def test_grid_search_in_processes():
    search = model_selection.GridSearchCV(small(epochs=1), {"hidden_size": [4, 5]}, cv=2, n_jobs=2, error_score="raise")
    assert len(search.fit(TEXTS[:60], WORDS[:60]).cv_results_["mean_test_score"]) == 2


def test_pipeline_with_a_cleaner():
    cleaner = FunctionTransformer(lambda texts: [text.replace("<br>", " ") for text in texts])
    pipeline = Pipeline([("clean", cleaner), ("classify", small())])
    pipeline.fit([text.replace(" ", "<br>") for text in TEXTS], WORDS)
    assert pipeline.predict(["a<br>moving<br>film"]).tolist() == ["good"]
    assert pipeline.classes_.tolist() == ["bad", "good"]
    pipeline.set_params(classify__hidden_size=5)
    assert pipeline.named_steps["classify"].options.hidden_size == 5
    with pytest.raises(ConfigError, match="hidden_size"):
        pipeline.set_params(classify__hidden_size=0)
    assert pipeline.named_steps["classify"].options.hidden_size == 5


def test_scikit_learn_is_not_needed():
    code = """
import sys
from carousel.tasks import Classifier
pairs = [("a good film", "x"), ("dull", "y")] * 10
model = Classifier(hidden_size=4, embedding_size=4, epochs=1, threads=1, progress=False).fit(*zip(*pairs))
model.predict(["a"]), model.predict_proba(["a"]), model.score(*zip(*pairs)), model.classes_
try:
    Classifier().predict(["a"])
except RuntimeError as error:
    print(type(error).__name__)
print("sklearn" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["NotFittedError", "False"], done.stderr


# --- scikit-learn's own checks ----------------------------------------------------------------------------------------

#: Checks that are not for estimators of sequences, or against a decision of ours; each must fail, so that none stays here
#: for longer than its reason.
LEFT_OUT = {
    "check_no_attributes_set_in_init": "the options are kept as two checked dataclasses, `options` and `training`",
    "check_do_not_raise_errors_in_init_or_set_params": "an impossible option is told where it is given",
    "check_parameters_default_constructible": "some defaults are empty dicts, one for each estimator",
    "check_n_features_in": "sequences have lengths, not a number of features",
    "check_n_features_in_after_fitting": "sequences have lengths, not a number of features",
    "check_classifiers_train": "passes up to its last demand: that a longer sequence is refused",
    "check_fit2d_predict1d": "its message is to ask for a reshaped matrix; ours asks for a sequence",
    "check_dtype_object": "its message is to speak of strings and numbers; ours shows the item",
    "check_estimators_empty_data_messages": "a sequence without steps is allowed",
    "check_fit2d_1sample": "its message is to name one sample; ours says that nothing can be held out",
}


class Rows(Classifier):
    """The classifier for scikit-learn's checks: they hand over matrices, whose rows are series here."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.one_d_array = tags.input_tags.three_d_array = tags.input_tags.string = False
        return tags


def their_checks():
    rows = Rows(
        **QUICK | {"source": "series", "epochs": 2, "lr": 0.05, "bidirectional": False, "summary": "last"}, engine="eager"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it does not derive from their BaseEstimator
        for _, check in estimator_checks_generator(rows, legacy=True):
            inner = check.func if isinstance(check.func, partial) else check
            name = inner.func.__name__
            words = [name, *(str(value) for value in check.keywords.values())]
            marks = [pytest.mark.xfail(strict=True, reason=LEFT_OUT[name])] if name in LEFT_OUT else []
            yield pytest.param(rows, check, id="-".join(words), marks=marks)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("estimator", "check"), list(their_checks()))
def test_their_checks(estimator, check):
    try:
        check(estimator)
    except SkipTest as missing:
        pytest.skip(str(missing))


def test_what_is_left_out_is_a_check():
    assert set(LEFT_OUT) <= {param.id.split("-")[0] for param in their_checks()}
