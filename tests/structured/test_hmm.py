"""Hidden Markov models: a NumPy oracle, EM that never falls, states that are found again, verbs and files."""

import json

import numpy as np
import pytest
import torch

from carousel.errors import CheckpointError, ConfigError, DataError, NotFittedError, ShapeError
from carousel.structured import HMM, Categorical, Gaussian, GaussianMixture, Multinomial
from oracles.hmm import categorical_em, forward_backward, normal_density


def random_model(K=3, V=5, seed=0, **options):
    rng = np.random.default_rng(seed)
    model = HMM(K, **options)
    return model.set_parameters(rng.dirichlet(np.ones(K)), rng.dirichlet(np.ones(K), K), symbols=rng.dirichlet(np.ones(V), K))


def parameters(model):
    return model.start_.copy(), model.transition_.copy(), model.emission_["symbols"].copy()


@pytest.fixture
def sequences():
    rng = np.random.default_rng(1)
    return [rng.integers(0, 5, size=n) for n in (7, 1, 12, 4)]


def test_em_is_the_oracles(sequences):
    model = random_model(max_iter=4, tol=0.0, warm_start=True)
    wanted, history = parameters(model), []
    for _ in range(4):
        *wanted, total = categorical_em(*wanted, sequences)
        history.append(total)
    model.fit(sequences)
    for got, want in zip(parameters(model), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(model.history_[:4], history, rtol=1e-12)


@pytest.mark.parametrize("engine", ["auto", "eager"])
def test_posteriors_likelihood_and_paths_are_the_oracles(sequences, engine, monkeypatch):
    monkeypatch.setenv("CAROUSEL_ENGINE", engine)
    model = random_model()
    start, transition, symbols = parameters(model)
    total, posteriors = model.score_samples(sequences)
    wanted = [forward_backward(start, transition, symbols[:, x].T) for x in sequences]
    assert total == pytest.approx(sum(w[2] for w in wanted), rel=1e-12)
    assert model.score(sequences) == pytest.approx(total, rel=1e-12)
    for got, want in zip(posteriors, wanted, strict=True):
        np.testing.assert_allclose(got, want[0], rtol=1e-10)
    by_step = model.predict(sequences, algorithm="posterior")
    assert all((got == want[0].argmax(1)).all() for got, want in zip(by_step, wanted, strict=True))
    score, paths = model.decode(sequences)
    own = 0.0
    for x, y in zip(sequences, paths, strict=True):
        own += np.log(start[y[0]]) + np.log(symbols[y, x]).sum() + np.log(transition[y[:-1], y[1:]]).sum()
    assert score == pytest.approx(own, rel=1e-12)
    assert score <= total
    for _ in range(50):  # no path of 50 others is better
        other = [np.random.default_rng(_).integers(0, 3, len(x)) for x in sequences]
        value = sum(
            np.log(start[y[0]]) + np.log(symbols[y, x]).sum() + np.log(transition[y[:-1], y[1:]]).sum()
            for x, y in zip(sequences, other, strict=True)
        )
        assert value <= score


def test_one_array_with_lengths_is_a_list(sequences):
    model, joined, lengths = random_model(), np.concatenate(sequences), [len(x) for x in sequences]
    assert model.score(joined, lengths) == model.score(sequences)
    np.testing.assert_array_equal(model.predict(joined, lengths), np.concatenate(model.predict(sequences)))
    np.testing.assert_array_equal(model.predict_proba(joined, lengths), np.concatenate(model.predict_proba(sequences)))
    assert model.predict_proba([0, 1, 2]).shape == (3, 3)


DATA = {
    "categorical": (Categorical(), lambda rng: rng.integers(0, 6, 80)),
    "multinomial": (Multinomial(), lambda rng: rng.multinomial(9, rng.dirichlet(np.ones(4), 2)[0], 80)),
    "diag": (Gaussian(), lambda rng: rng.normal(size=(80, 2)) * [1, 3] + rng.integers(0, 3, (80, 1)) * 3),
    "full": (Gaussian("full"), lambda rng: rng.normal(size=(80, 2)) @ [[1, 0.7], [0, 1]] + rng.integers(0, 3, (80, 1)) * 3),
    "mixture": (GaussianMixture(2), lambda rng: rng.normal(size=(80, 2)) + rng.integers(0, 4, (80, 1)) * 3),
    "full mixture": (GaussianMixture(2, "full"), lambda rng: rng.normal(size=(80, 2)) + rng.integers(0, 4, (80, 1)) * 3),
    "points": (Gaussian("full"), lambda rng: np.repeat(rng.normal(size=(4, 2)), 20, 0)),  # variances at their least
}


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("told", [False, True])
def test_em_never_lowers_the_likelihood(name, told):
    kind, draw = DATA[name]
    for seed in range(3):
        rng = np.random.default_rng(seed)
        data = [draw(rng) for _ in range(2)]
        states = [np.where(rng.random(80) < 0.2, rng.integers(0, 3, 80), -1) for _ in data] if told else None
        model = HMM(3, kind, max_iter=25, tol=0.0, seed=seed).fit(data, states)
        history = np.array(model.history_)
        # A gain of nothing ends it; what rounding may take away is far less.
        assert len(history) > 2
        assert (np.diff(history) >= -1e-9 * np.abs(history[1:])).all(), np.diff(history).min()
        assert history[-1] > history[0]


def test_with_smoothing_the_posterior_never_falls(sequences):
    model = HMM(2, smoothing=0.5, max_iter=30, tol=0.0).fit(sequences)
    assert (np.diff(model.history_) >= -1e-9 * abs(model.history_[0])).all()
    assert (model.transition_ > 0).all()


def test_two_states_are_found_again():
    truth = HMM(2).set_parameters([0.5, 0.5], [[0.95, 0.05], [0.1, 0.9]], symbols=[[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    X, states = truth.sample(4000, seed=3)
    model = HMM(2, restarts=3).fit(X)
    found = model.predict(X)
    assert max((found == states).mean(), (found != states).mean()) > 0.9
    order = np.argsort(-model.emission_["symbols"][:, 0])
    np.testing.assert_allclose(model.emission_["symbols"][order], truth.emission_["symbols"], atol=0.05)
    np.testing.assert_allclose(model.transition_[order][:, order], truth.transition_, atol=0.05)
    assert model.score(X) >= truth.score(X)


@pytest.mark.parametrize("kind", [Gaussian(), Gaussian("full"), GaussianMixture(2)])
def test_states_of_vectors_are_found_again(kind):
    rng = np.random.default_rng(0)
    states = np.repeat(rng.integers(0, 3, 60), 10)
    X = np.array([[0, 0], [6, 0], [0, 6]])[states] + rng.normal(size=(600, 2))
    model = HMM(3, kind, restarts=3, max_iter=30).fit(X)
    found = model.predict(X)
    best = {k: np.bincount(states[found == k], minlength=3).argmax() for k in range(3)}
    assert np.mean([best[k] for k in found] == states) > 0.97


def test_densities_are_the_oracles():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(6, 2))
    roots = rng.normal(size=(3, 2, 2))
    full = roots @ roots.transpose(0, 2, 1) + np.eye(2)
    means = rng.normal(size=(3, 2))
    even = {"start": np.full(3, 1 / 3), "transition": np.full((3, 3), 1 / 3)}
    for kind, covariances, dense in (
        (Gaussian("full"), full, full),
        (Gaussian(), full.diagonal(axis1=1, axis2=2), np.stack([np.diag(np.diag(c)) for c in full])),
    ):
        model = HMM(3, kind).set_parameters(**even, means=means, covariances=covariances)
        wanted = np.log(normal_density(X, means, dense).mean(1)).sum()
        assert model.score(X) == pytest.approx(wanted, rel=1e-12)
    mixed = HMM(1, GaussianMixture(3, "full")).set_parameters(
        [1.0], [[1.0]], weights=[[0.2, 0.3, 0.5]], means=means[None], covariances=full[None]
    )
    assert mixed.score(X) == pytest.approx(np.log(normal_density(X, means, full) @ [0.2, 0.3, 0.5]).sum(), rel=1e-12)


def test_one_state_learns_mean_and_covariance():
    X = np.random.default_rng(0).normal(size=(50, 2)) @ [[2.0, 0.7], [0.0, 0.5]] + [3.0, -1.0]
    for kind, wanted in (
        (Gaussian("full"), np.cov(X.T, bias=True)),
        (Gaussian(), X.var(0)),
        (GaussianMixture(1, "full"), np.cov(X.T, bias=True)[None]),
        (Gaussian(min_variance=1e3), np.full(2, 1e3)),
        (Gaussian("full", min_variance=1e3), np.eye(2) * 1e3),
    ):
        model = HMM(1, kind, max_iter=3, tol=0.0).fit(X)
        np.testing.assert_allclose(model.emission_["covariances"][0], wanted, rtol=1e-10, atol=1e-9)
        np.testing.assert_allclose(model.emission_["means"].reshape(2), X.mean(0), rtol=1e-10)
    # Told states: each its own.
    states = (np.arange(50) % 3 == 0).astype(int)
    told = HMM(2, Gaussian("full")).fit(X, states)
    for k in range(2):
        np.testing.assert_allclose(told.emission_["covariances"][k], np.cov(X[states == k].T, bias=True), rtol=1e-9)


def test_multinomial_likelihood_counts_orders():
    model = HMM(1, "multinomial").set_parameters([1.0], [[1.0]], symbols=[[0.5, 0.3, 0.2]])
    assert model.score(np.array([[2, 1, 0], [0, 0, 3]])) == pytest.approx(np.log(3 * 0.5**2 * 0.3) + np.log(0.2**3))
    impossible = HMM(1, "multinomial").set_parameters([1.0], [[1.0]], symbols=[[0.5, 0.5, 0.0]])
    assert impossible.score(np.array([[1, 1, 0]])) == pytest.approx(np.log(2 * 0.25))
    assert impossible.score(np.array([[1, 0, 1]])) == -np.inf


def test_counting_is_counting():
    X, states = [[0, 1, 1], [2, 0]], [[0, 0, 1], [1, 0]]
    model = HMM(2).fit(X, states)
    np.testing.assert_allclose(model.start_, [0.5, 0.5])
    np.testing.assert_allclose(model.transition_, [[0.5, 0.5], [1, 0]])
    np.testing.assert_allclose(model.emission_["symbols"], [[2 / 3, 1 / 3, 0], [0, 0.5, 0.5]])
    smoothed = HMM(2, smoothing=1.0).fit(X, states)
    np.testing.assert_allclose(smoothed.transition_, [[0.5, 0.5], [2 / 3, 1 / 3]])
    np.testing.assert_allclose(smoothed.emission_["symbols"], [[3 / 6, 2 / 6, 1 / 6], [1 / 5, 2 / 5, 2 / 5]])


def test_told_states_stay_and_help():
    truth = HMM(2).set_parameters([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], symbols=[[0.85, 0.15], [0.15, 0.85]])
    X, states = truth.sample(1500, seed=1)
    told = np.where(np.arange(1500) % 10 == 0, states, -1)
    model = HMM(2).fit(X, told)
    # Which state is which is told, so nothing has to be turned round.
    assert (model.predict(X) == states).mean() > 0.85
    assert model.emission_["symbols"][0, 0] > 0.75


def test_a_symbol_never_seen_says_nothing():
    model = random_model()
    start, transition, symbols = parameters(model)
    got = model.predict_proba([0, -1, 2])
    likelihoods = np.stack([symbols[:, 0], np.ones(3), symbols[:, 2]])
    np.testing.assert_allclose(got, forward_backward(start, transition, likelihoods)[0], rtol=1e-10)


def test_long_sequences_and_forbidden_transitions():
    """A model that only goes forward, and zeros in the symbols: nothing is lost over 3,000 steps."""
    model = HMM(3).set_parameters(
        [1, 0, 0], [[0.999, 0.001, 0], [0, 0.999, 0.001], [0, 0, 1]], symbols=[[1, 0, 0], [0, 1, 0], [0.2, 0.2, 0.6]]
    )
    X = np.repeat([0, 1, 2], 1000)
    np.testing.assert_array_equal(model.predict(X), X)
    total = 1998 * np.log(0.999) + 2 * np.log(0.001) + 1000 * np.log(0.6)
    # The last state gives off a 1 as well: it may begin earlier.
    total -= np.log(1 - 0.2 / 0.999)
    assert model.score(X) == pytest.approx(total, rel=1e-12)
    assert model.score([2, 0]) == -np.inf


def test_samples_have_the_models_frequencies():
    model = random_model(seed=4)
    X, states = model.sample(20_000, seed=1)
    for k in range(3):
        np.testing.assert_allclose(
            np.bincount(X[states == k], minlength=5) / (states == k).sum(), model.emission_["symbols"][k], atol=0.03
        )
        after = states[1:][states[:-1] == k]
        np.testing.assert_allclose(np.bincount(after, minlength=3) / len(after), model.transition_[k], atol=0.03)


@pytest.mark.parametrize("name", ["multinomial", "diag", "full", "mixture"])
def test_samples_of_vectors_are_near_their_model(name):
    kind, draw = DATA[name]
    model = HMM(2, kind, max_iter=10).fit(draw(np.random.default_rng(0)))
    X, states = model.sample(3000, seed=2)
    assert len(X) == len(states) == 3000
    again = HMM(2, kind, max_iter=0, warm_start=True)
    again.set_parameters(model.start_, model.transition_, **model.emission_)
    if name != "multinomial":  # of which one trial a step is drawn
        weights = model.emission_.get("weights", np.ones((2, 1)))[..., None]
        means = (model.emission_["means"].reshape(2, -1, 2) * weights).sum(1)
        for k in range(2):
            np.testing.assert_allclose(X[states == k].mean(0), means[k], atol=0.5)


def test_criteria():
    model, X = random_model(), np.arange(10) % 5
    assert model.num_parameters == 3 * 3 - 1 + 3 * 4
    assert model.aic(X) == pytest.approx(2 * 20 - 2 * model.score(X))
    assert model.bic(X) == pytest.approx(20 * np.log(10) - 2 * model.score(X))
    assert HMM(2, Gaussian("full")).fit(np.random.default_rng(0).normal(size=(20, 3))).num_parameters == 3 + 2 * 3 + 2 * 6


@pytest.mark.parametrize("name", DATA)
def test_saved_and_loaded_is_the_same(name, tmp_path):
    kind, draw = DATA[name]
    X = draw(np.random.default_rng(0))
    model = HMM(2, kind, max_iter=3, seed=7).fit(X)
    model.save(tmp_path / "model")
    again = HMM.load(tmp_path / "model")
    assert (again.num_states, again.emissions, again.seed) == (2, kind, 7)
    assert again.score(X) == model.score(X)
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_damaged_files_are_refused(tmp_path):
    random_model().save(tmp_path)
    config = json.loads((tmp_path / "model.json").read_text())
    for change, words in (
        ("{", "not JSON"),
        (json.dumps({**config, "kind": "crf"}), "another model"),
        (json.dumps({**config, "config": {**config["config"], "num_states": 4}}), "does not fit"),
        (json.dumps({**config, "config": {**config["config"], "unknown": 4}}), "not a saved HMM"),
        (json.dumps({**config, "config": {**config["config"], "emissions": {"kind": "os.system"}}}), "not a saved HMM"),
        (json.dumps([]), "not a saved model"),
    ):
        (tmp_path / "model.json").write_text(change)
        with pytest.raises(CheckpointError, match=words):
            HMM.load(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(CheckpointError, match="safetensors"):
        HMM.load(tmp_path)


def test_what_is_not_possible_is_refused():
    for options, words in (
        ({"num_states": 0}, "num_states=0"),
        ({"num_states": 2, "emissions": "gausian"}, "Did you mean 'gaussian'"),
        ({"num_states": 2, "tol": -1.0}, "tol=-1"),
    ):
        with pytest.raises(ConfigError, match=words):
            HMM(**options)
    with pytest.raises(ConfigError, match="Did you mean 'full'"):
        Gaussian("ful")
    with pytest.raises(NotFittedError):
        HMM(2).predict([0])
    with pytest.raises(ConfigError, match="Did you mean 'viterbi'"):
        random_model().predict([0], algorithm="viterbo")
    with pytest.raises(DataError, match="0 to 4"):
        random_model().predict([5])
    with pytest.raises(DataError, match="whole numbers"):
        HMM(2).fit([0.5, 1.0])
    with pytest.raises(DataError, match="step 1 has a number that is not finite"):
        HMM(2, "gaussian").fit([[0.0], [np.nan]])
    with pytest.raises(ShapeError, match="do not add up"):
        HMM(2).fit(np.zeros(4, int), lengths=[2, 3])
    with pytest.raises(ShapeError, match="2 states, 3 steps"):
        HMM(2).fit([0, 1, 0], [0, 1])
    with pytest.raises(DataError, match="-1 to 1"):
        HMM(2).fit([0, 1, 0], [0, 1, 2])
    with pytest.raises(ConfigError, match="sum 1"):
        HMM(2).set_parameters([0.5, 0.6], np.eye(2), symbols=np.eye(2))
    with pytest.raises(ShapeError, match=r"transition does not fit"):
        HMM(2).set_parameters([0.5, 0.5], np.eye(3), symbols=np.eye(2))


def test_nothing_to_learn_from():
    model = HMM(2, max_iter=2).fit([])
    assert model.predict([]) == []
    assert torch.isfinite(torch.from_numpy(model.transition_)).all()
