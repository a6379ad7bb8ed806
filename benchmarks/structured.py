"""The structured core beside what others use: pytorch-crf, hmmlearn, python-crfsuite. Correctness first, then times in turns.

    python benchmarks/structured.py --markdown --json structured.json
    python benchmarks/structured.py --only crf,viterbi,hmm
    python benchmarks/structured.py --only features --conll2000 FOLDER     # train.txt.gz, test.txt.gz; minutes

The others are no dependencies of this package: ``pip install --no-deps pytorch-crf hmmlearn python-crfsuite``. Without one, its
rows are left out, and said so. Times are medians of rounds in which both sides take turns, each once untimed and then a few
times timed; a ratio is the median of the rounds' ratios, with quartiles. It is the process's own CPU time, which others on the
machine disturb less; one thread each unless ``--threads`` says more.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from timing import Spread, machine, table

from carousel.structured import CRF, HMM, FeatureCRF, StructuredPerceptron, StructuredSVM, TokenFeatures

Row = dict[str, object]
Action = Callable[[], object]


def measured(name: str, ours: Action, theirs: Action, rounds: int, required: float | None, calls: int = 5) -> Row:
    """Both in turns; CPU seconds, and how many times faster ours is."""
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    ours(), theirs()
    for _ in range(rounds):
        for who, action in (("ours", ours), ("theirs", theirs)):
            action()  # the one before took the caches
            start = time.process_time()
            for _ in range(calls):
                action()
            times[who].append((time.process_time() - start) / calls)
    ratios = Spread.of([b / a for a, b in zip(times["ours"], times["theirs"], strict=True)])
    row = {"what": name, "ours": Spread.of(times["ours"]).median, "theirs": Spread.of(times["theirs"]).median}
    return {**row, "ratio": ratios.median, "quartiles": [ratios.low, ratios.high], "required": required}


def there(module: str, package: str) -> bool:
    if importlib.util.find_spec(module) is None:
        print(f"left out: {package} is not installed", file=sys.stderr)
        return False
    return True


def check(name: str, got: torch.Tensor, want: torch.Tensor, bound: float) -> None:
    error = float((got.double() - want.double()).abs().max() / want.double().abs().max().clamp(min=1e-30))
    if not error <= bound:
        raise SystemExit(f"{name} is wrong, relative error {error:.1e}")


# --- chains -----------------------------------------------------------------------------------------------------------


def chains(K: int, B: int = 32, T: int = 50) -> tuple[CRF, torch.nn.Module, torch.Tensor, torch.Tensor, torch.Tensor]:
    import torchcrf

    torch.manual_seed(0)
    ours, theirs = CRF(K), torchcrf.CRF(K, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    lengths = torch.randint(T // 2, T + 1, (B, 1))
    lengths[0] = T
    return ours, theirs, torch.randn(B, T, K), torch.randint(K, (B, T)), torch.arange(T) < lengths


def crf_rows(rounds: int, kinds: set[str]) -> list[Row]:
    rows = []
    for K, required in ((5, None), (20, 10.0), (100, 25.0)):
        ours, theirs, emissions, tags, mask = chains(K)
        for ragged in (False, True):
            real = mask if ragged else torch.ones_like(mask)
            leaves = {name: emissions.clone().requires_grad_() for name in ("ours", "theirs")}

            def through(name: str, module: torch.nn.Module, leaves=leaves, tags=tags, real=real) -> torch.Tensor:
                leaves[name].grad = None
                module.zero_grad()
                loss = -module(leaves[name], tags, real)
                loss.backward()
                return loss.detach()

            check("loss", through("ours", ours), through("theirs", theirs), 1e-5)
            check("gradient", leaves["ours"].grad, leaves["theirs"].grad, 1e-4)
            for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
                check(name, p.grad, dict(theirs.named_parameters())[name].grad, 1e-4)
                del q
            if ours.decode(emissions, real) != theirs.decode(emissions, real):
                raise SystemExit("Viterbi is wrong")
            shape = f"B 32, T {'25 to 50' if ragged else '50'}, K {K}"
            needed = None if ragged else required
            if "crf" in kinds:
                pair = (lambda o=ours, f=through: f("ours", o)), (lambda t=theirs, f=through: f("theirs", t))
                rows.append(measured(f"CRF loss and gradient, {shape}", *pair, rounds, needed))
            if "viterbi" in kinds:
                pair = (
                    (lambda o=ours, e=emissions, m=real: o.decode(e, m)),
                    (lambda t=theirs, e=emissions, m=real: t.decode(e, m)),
                )
                rows.append(measured(f"Viterbi, {shape}", *pair, rounds, None if needed is None else 5.0))
    return rows


# --- hidden Markov models ---------------------------------------------------------------------------------------------


def hmm_rows(rounds: int, steps: int) -> list[Row]:
    import hmmlearn.hmm as peers

    logging.getLogger("hmmlearn").setLevel(logging.CRITICAL)
    rng, K, V, iterations = np.random.default_rng(0), 10, 30, 5
    source = HMM(K).set_parameters(
        rng.dirichlet(np.ones(K)), rng.dirichlet(np.full(K, 0.3), K), symbols=rng.dirichlet(np.full(V, 0.3), K)
    )
    X, _ = source.sample(steps)
    start, transition, symbols = rng.dirichlet(np.ones(K)), rng.dirichlet(np.ones(K), K), rng.dirichlet(np.ones(V), K)

    def ours() -> list[float]:
        # One pass more, for the likelihood at the end, is hmmlearn's too in its count of iterations.
        model = HMM(K, max_iter=iterations - 1, tol=0.0, warm_start=True).set_parameters(start, transition, symbols=symbols)
        return model.fit(X).history_

    def theirs(implementation: str) -> list[float]:
        model = peers.CategoricalHMM(
            K, n_iter=iterations, tol=-np.inf, init_params="", params="ste", implementation=implementation
        )
        model.startprob_, model.transmat_, model.emissionprob_ = start.copy(), transition.copy(), symbols.copy()
        model.fit(X[:, None])
        return list(model.monitor_.history)

    got, want = np.array(ours()), np.array(theirs("log"))
    if not np.allclose(got, want, rtol=0, atol=1e-6):
        raise SystemExit(f"EM is wrong: {got} against {want}")
    print(f"EM's log-likelihoods differ by {np.abs(got - want).max():.1e} nats of {abs(want[-1]):.0f}", file=sys.stderr)
    rows = []
    for how in ("scaling", "log"):
        name = f"EM, {steps} symbols, 10 states, 5 iterations; hmmlearn, {how}"
        rows.append(measured(name, ours, lambda how=how: theirs(how), max(rounds // 5, 2), 1.0, calls=1))
    return rows


# --- indicator features -----------------------------------------------------------------------------------------------


def sentences(path: Path, limit: int) -> tuple[list[list[tuple[str, ...]]], list[list[str]]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        blocks = file.read().strip().split("\n\n")[:limit]
    split = [[tuple(line.split()) for line in block.splitlines()] for block in blocks]
    return [[row[:2] for row in rows] for rows in split], [[row[2] for row in rows] for rows in split]


def spans(tags: list[str]) -> set[tuple[int, int, str]]:
    """BIO's spans as conlleval reads them: an I that follows nothing of its type begins one."""
    found, begin, kind = set(), None, ""
    for at, tag in enumerate([*tags, "O"]):
        letter, _, own = tag.partition("-")
        if begin is not None and (letter != "I" or own != kind):
            found.add((begin, at, kind))
            begin = None
        if letter != "O" and begin is None:
            begin, kind = at, own
    return found


def f1(got: list[list[str]], want: list[list[str]]) -> float:
    pairs = [(spans(a), spans(b)) for a, b in zip(got, want, strict=True)]
    right, all_of_them = sum(len(a & b) for a, b in pairs), sum(len(a) + len(b) for a, b in pairs)
    return 200.0 * right / max(all_of_them, 1)


def feature_rows(folder: Path, limit: int) -> list[Row]:
    import pycrfsuite

    X, y = sentences(folder / "train.txt.gz", limit)
    X_test, y_test = sentences(folder / "test.txt.gz", limit)
    write, rows = TokenFeatures(), []

    def theirs(directory: str) -> list[list[str]]:
        trainer = pycrfsuite.Trainer(verbose=False)
        for sentence, tags in zip(X, y, strict=True):
            trainer.append(write(sentence), tags)
        trainer.set_params({"c1": 0.0, "c2": 1.0})
        trainer.train(f"{directory}/model")
        return []

    with tempfile.TemporaryDirectory() as directory:
        start, wall = time.process_time(), time.perf_counter()
        theirs(directory)
        spent, passed = time.process_time() - start, time.perf_counter() - wall
        tagger = pycrfsuite.Tagger()
        tagger.open(f"{directory}/model")
        reached = f1([tagger.tag(write(sentence)) for sentence in X_test], y_test)
        tagger.close()
    print(f"python-crfsuite: F1 {reached:.2f}, {spent:.1f} s of CPU, {passed:.1f} s", file=sys.stderr)
    for model, required in ((FeatureCRF(), 0.5), (StructuredPerceptron(), None), (StructuredSVM(), None)):
        start, wall = time.process_time(), time.perf_counter()
        model.fit(X, y)
        own, took = time.process_time() - start, time.perf_counter() - wall
        score = f1(model.predict(X_test), y_test)
        name = f"{type(model).__name__} on {len(X)} sentences of CoNLL-2000"
        print(f"{name}: F1 {score:.2f}, {own:.1f} s of CPU, {took:.1f} s, {len(model.history_)} passes", file=sys.stderr)
        row = {"what": name, "ours": own, "theirs": spent, "ratio": spent / own, "quartiles": [spent / own] * 2}
        rows.append({**row, "required": required, "f1": score, "their_f1": reached})
    return rows


# --- the table --------------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="crf,viterbi,hmm,features")
    parser.add_argument("--conll2000", type=Path, help="a folder with train.txt.gz and test.txt.gz")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="only whether everything runs and is right")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    kinds, rounds = set(options.only.split(",")), 2 if options.quick else options.rounds
    rows: list[Row] = []
    if kinds & {"crf", "viterbi"} and there("torchcrf", "pytorch-crf"):
        rows += crf_rows(rounds, kinds)
    if "hmm" in kinds and there("hmmlearn", "hmmlearn"):
        rows += hmm_rows(rounds, 2000 if options.quick else 100_000)
    if "features" in kinds and options.conll2000 is not None and there("pycrfsuite", "python-crfsuite"):
        rows += feature_rows(options.conll2000, 100 if options.quick else 10**9)
    head = ["", "ours", "theirs", "times faster", "required"]
    body = [
        [
            str(row["what"]), f"{row['ours'] * 1e3:.2f} ms", f"{row['theirs'] * 1e3:.2f} ms",
            f"{row['ratio']:.1f} [{row['quartiles'][0]:.1f}, {row['quartiles'][1]:.1f}]",
            (f"F1 {row['f1']:.2f} beside {row['their_f1']:.2f}" if "f1" in row else ""
             if row["required"] is None else f">= {row['required']:g}"),
        ]
        for row in rows
    ]  # fmt: skip
    if options.markdown:
        lines = ["| " + " | ".join(line) + " |" for line in (head, ["---", *["---:"] * 4], *body)]
        print("\n".join(lines))
    else:
        print(table(head, body))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))
    print("all results are right")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
