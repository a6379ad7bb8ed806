"""The report of a run: what the page holds and what it cannot do, its numbers, calibration, and the model card."""

import base64
import hashlib
import json
import re
import time
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from carousel.errors import CarouselError
from carousel.tasks import Classifier
from carousel.tasks.report import recall_temperature, write_report
from carousel.tasks.report.calibration import COLDEST, calibrate, fit_temperature, reliability
from carousel.tasks.report.charts import ticks
from evaluations import answered

HISTORY = [
    {
        "epoch": epoch,
        "seconds": 30.0 * epoch,
        "lr": 0.01 / epoch,
        "train_loss": 1 / epoch,
        "valid_loss": 0.5,
        "train_accuracy": 0.99,
        "valid_accuracy": 0.6,
        "tokens_per_second": 1000.0,
    }
    for epoch in (1, 2, 3)
]
CONFIG = {"task": "classify", "cell": "lstm", "hidden_size": 8, "train": "train.tsv", "valid": "valid.tsv", "seed": 1}
KEYS = [
    *("format", "carousel", "task", "kind", "data", "count", "labels", "scores", "baseline", "training", "table", "confusion"),
    *("numbers", "mistakes", "lengths", "calibration", "facts", "settings", "advice"),
]
HOSTILE = [
    "<script>document.body.remove()</script>",
    '"><img src=x onerror=alert(1)>',
    "</td></table></section><style>*{display:none}</style>",
    "javascript:alert(1)",
    "&lt;b&gt; & &amp; ' \" `",
    "nul \x00 escape \x1b[31m half \ud800 turned \u202e around",
    "http://example.org/a?b=c",
    "| a | table | \n# heading",
]


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.inside: list[str] = []
        self.content: dict[str, str] = {"script": "", "style": ""}
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag != "meta":  # it has no end
            self.inside.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.inside.pop() == tag  # well nested

    def handle_data(self, data):
        if self.inside and self.inside[-1] in self.content:
            self.content[self.inside[-1]] += data
        else:
            self.words += data


def written(out, evaluation, name="report", **more):
    found = write_report(out, name, evaluation, HISTORY, CONFIG, best_epoch=2, **more)
    return found, (out / f"{name}.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["one", "several", "number"])
def test_sections_come_in_their_order(tmp_path, kind):
    _, page = written(tmp_path, answered(kind))
    middle = {"one": ["confusion", "labels"], "several": ["labels"], "number": ["labels", "numbers"]}[kind]
    end = ["settings", "next"] if kind == "number" else ["calibration", "settings", "next"]
    expected = ["summary", "curves", *middle, "mistakes", "lengths", *end]
    assert re.findall(r'<section id="(\w+)">', page) == expected
    assert re.findall(r'<a href="#(\w+)">', page) == expected


@pytest.mark.parametrize("kind", ["one", "several", "number"])
def test_json_holds_the_same_numbers(tmp_path, kind):
    evaluation = answered(kind)
    found, page = written(tmp_path, evaluation)
    saved = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert saved == found
    assert list(saved) == KEYS
    scores = evaluation.scores()
    assert {name: score["value"] for name, score in saved["scores"].items()} | {"count": 60} == pytest.approx(scores)
    for score in saved["scores"].values():
        assert score["low"] < score["value"] < score["high"]
        assert f"{score['value']:.4f}" in page
    assert saved["training"] == {"best_epoch": 2, "epochs": 3, "history": HISTORY}
    assert saved["settings"] == CONFIG
    assert (saved["confusion"] is not None) == (kind == "one")
    assert (saved["calibration"] is None) == (saved["numbers"] is not None) == (kind == "number")


@pytest.mark.parametrize("kind", ["one", "several", "number"])
def test_page_loads_nothing_and_runs_nothing_of_the_data(tmp_path, kind):
    labels = (HOSTILE[0], HOSTILE[1], HOSTILE[2], HOSTILE[5])
    N = 60
    texts = tuple(HOSTILE[number % len(HOSTILE)] for number in range(N))
    evaluation = answered(
        kind,
        skill=0.2,
        labels=labels,
        texts=texts,
        attention=[[(word, 0.5) for word in text.split(" ")] for text in texts],
        places=tuple(f"{HOSTILE[1]}.tsv:{number}" for number in range(N)),
    )
    config = CONFIG | {"train": HOSTILE[0], "text_field": HOSTILE[1], HOSTILE[2]: HOSTILE[3], "cell": HOSTILE[1]}
    write_report(tmp_path, "report", evaluation, HISTORY, config, data=HOSTILE[0], facts={HOSTILE[0]: HOSTILE[1]})
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("script") == page.tags.count("style") == 1
    assert not {"img", "link", "iframe", "object", "embed", "form", "input", "base", "image", "use"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("src", "srcset", "style", "data", "action", "formaction", "background", "poster", "xlink:href")
        if name == "href":
            assert re.fullmatch(r"#\w+", value)
    assert "url(" not in page.content["style"]
    assert "@import" not in page.content["style"]
    assert HOSTILE[0] in page.words  # shown, as text
    assert "\x00" not in text
    assert "\x1b" not in text
    assert text.count("<section") == text.count("</section>")


def test_the_policy_allows_the_one_style_sheet_and_the_one_script(tmp_path):
    _, text = written(tmp_path, answered("one"))
    page = Page(text)
    policy = next(value for tag, name, value in page.attributes if tag == "meta" and "default-src" in value)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        digest = base64.b64encode(hashlib.sha256(page.content[tag].encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert text.index("Content-Security-Policy") < text.index("<style>")


def test_worst_mistakes_come_first_with_place_and_attention(tmp_path):
    evaluation = answered("one", skill=0.5)
    found, page = written(tmp_path, evaluation)
    losses = np.where(evaluation.right, -1, evaluation.losses)
    order = np.argsort(-losses)[: min(25, (~evaluation.right).sum())]
    assert [item["place"] for item in found["mistakes"]] == [evaluation.places[at] for at in order]
    for item, at in zip(found["mistakes"], order, strict=True):
        assert item["answer"] != item["truth"] == evaluation.labels[evaluation.truth[at]]
        assert item["truth_probability"] == pytest.approx(evaluation.probabilities[at, evaluation.truth[at]])
        assert len(item["attention"]) == evaluation.lengths[at]
        assert item["place"] in page
    assert re.search(r'<bdi class="a10" title="[\d.]+">word</bdi>', page)


def test_mistakes_in_numbers_are_measured_in_deviations(tmp_path):
    truth = np.stack([np.arange(60.0), 1000 * np.arange(60.0)], axis=1)
    logits = truth.copy()
    logits[5, 0] += 10  # more than half a deviation
    logits[9, 1] += 500  # much less than one
    found, _ = written(tmp_path, answered("number", V=2, truth=truth, logits=logits))
    assert [item["place"] for item in found["mistakes"][:2]] == ["valid.tsv:7", "valid.tsv:11"]


def test_length_slices_cover_all_items(tmp_path):
    evaluation = answered("one", N=200)
    found, _ = written(tmp_path, evaluation)
    assert len(found["lengths"]) == 5
    assert sum(row["count"] for row in found["lengths"]) == 200
    ends = [end for row in found["lengths"] for end in (row["shortest"], row["longest"])]
    assert ends == sorted(ends)
    for row in found["lengths"]:
        mine = (evaluation.lengths >= row["shortest"]) & (evaluation.lengths <= row["longest"])
        assert row["count"] == mine.sum()
        assert row["value"] == pytest.approx(evaluation.right[mine].mean())
        assert row["low"] < row["value"] < row["high"] or row["value"] in (0, 1)


def test_confused_pairs_are_counted(tmp_path):
    truth = np.array([0, 0, 0, 1, 1, 2, 2])
    answers = np.array([0, 1, 1, 1, 2, 2, 2])
    logits = np.where(answers[:, None] == np.arange(3), 3.0, 0.0)
    found, _ = written(tmp_path, answered("one", N=7, V=3, truth=truth, logits=logits))
    assert found["confusion"]["counts"] == [[1, 2, 0], [0, 1, 1], [0, 0, 2]]
    assert [(pair["truth"], pair["answer"], pair["count"]) for pair in found["confusion"]["pairs"]] == [
        ("label 0", "label 1", 2),
        ("label 1", "label 2", 1),
    ]
    assert found["baseline"] == {"answer": "label 0", "score": "accuracy", "value": 3 / 7}


@pytest.mark.parametrize("kind", ["one", "several", "number"])
@pytest.mark.parametrize("N", [1, 2, 3])
def test_few_items_make_a_report(tmp_path, kind, N):
    found, _ = written(tmp_path, answered(kind, N=N))
    assert found["count"] == N
    assert any(f"Only {N} items" in line for line in found["advice"])


@pytest.mark.parametrize("kind", ["one", "several", "number"])
def test_perfect_and_equally_long_items_make_a_report(tmp_path, kind):
    evaluation = answered(kind, lengths=np.full(60, 7), attention=None, places=())
    logits = evaluation.truth if kind == "number" else 9.0 * (2 * evaluation.truth - 1)
    if kind == "one":
        logits = 9.0 * (evaluation.truth[:, None] == np.arange(4))
    found, page = written(tmp_path, replace(evaluation, logits=np.asarray(logits, dtype=np.float64)))
    assert [row["value"] for row in found["lengths"]] == [0.0 if kind == "number" else 1.0]
    assert ("No item is answered wrongly." in page) == (kind != "number")


def test_numbers_that_are_not_finite_do_not_spoil_the_files(tmp_path):
    history = [HISTORY[0] | {"valid_loss": float("nan"), "train_loss": float("inf")}, *HISTORY[1:]]
    found = write_report(tmp_path, "report", answered("one"), history, CONFIG)
    assert found["training"]["history"][0]["valid_loss"] is None
    json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)


def test_report_is_small_and_quick(tmp_path):
    evaluation = answered("one", N=1000, V=60, skill=1.0)
    began = time.process_time()
    written(tmp_path, evaluation)
    assert time.process_time() - began < 2.0  # 0.1 s here
    assert (tmp_path / "report.html").stat().st_size < 500_000


def test_a_report_that_cannot_be_written_is_one_error(tmp_path):
    with pytest.raises(CarouselError, match="cannot be written"):
        written(tmp_path / "missing", answered("one"))


# --- advice -----------------------------------------------------------------------------------------------------------


def test_advice_names_what_stands_out(tmp_path):
    overfitted, _ = written(tmp_path, answered("one", N=300, skill=3.0))
    assert any("by heart" in line for line in overfitted["advice"])
    useless, _ = written(tmp_path, answered("one", N=300, skill=0.0))
    assert any("not clearly better" in line for line in useless["advice"])
    # Label 2 is never answered.
    evaluation = answered("one", N=300, skill=3.0)
    evaluation.logits[:, 2] = -9.0
    shy, _ = written(tmp_path, evaluation)
    assert any("Never answered though it occurs: label 2." in line for line in shy["advice"])
    unfinished = write_report(tmp_path, "report", answered("one", N=300), HISTORY, CONFIG, best_epoch=3)
    assert any("last epoch was the best" in line for line in unfinished["advice"])


def test_good_results_call_for_nothing(tmp_path):
    history = [row | {"train_accuracy": 0.65} for row in HISTORY]
    found = write_report(tmp_path, "report", calibrated("one", 3000), history, CONFIG, best_epoch=2)
    assert found["advice"] == []


# --- calibration ------------------------------------------------------------------------------------------------------


def calibrated(kind, N, factor=1.0):
    """Answers whose truth is drawn from their own probabilities; then the scores are multiplied by `factor`."""
    random = np.random.default_rng(7)
    logits = 2.0 * random.normal(size=(N, 3))
    if kind == "one":
        truth = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    else:
        truth = random.random(logits.shape) < 1 / (1 + np.exp(-logits))
    return answered(kind, N=N, V=3, truth=truth, logits=factor * logits)


@pytest.mark.parametrize("kind", ["one", "several"])
@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_temperature_undoes_a_factor(kind, factor):
    found = calibrate(calibrated(kind, 3000, factor))
    assert found.temperature == pytest.approx(factor, rel=0.1)
    assert found.source == "these data"
    assert found.ece_after < 0.03
    if factor != 1.0:
        assert found.ece_before > 0.08
        assert found.loss_after < found.loss_before - 0.02


@pytest.mark.parametrize("kind", ["one", "several"])
def test_temperature_is_the_best_of_a_grid(kind):
    evaluation = calibrated(kind, 300, 2.0)
    grid = np.geomspace(0.5, 8.0, 4000)
    losses = [replace(evaluation, logits=evaluation.logits / T).losses.mean() for T in grid]
    best = int(np.argmin(losses))
    assert grid[best - 2] < fit_temperature(evaluation) < grid[best + 2]


def test_numbers_after_scaling_are_cross_fitted():
    """Each half is scaled with what the other half says; by hand."""
    evaluation = calibrated("one", 101, 3.0)
    found = calibrate(evaluation, seed=5)
    order = np.random.default_rng([5, 3]).permutation(101)
    halves = order[:50], order[50:]
    losses = np.empty(101)
    for mine, other in (halves, halves[::-1]):
        temperature = fit_temperature(evaluation.take(np.sort(other)))
        part = evaluation.take(mine)
        losses[mine] = replace(part, logits=part.logits / temperature).losses
    assert found.loss_after == pytest.approx(losses.mean(), abs=1e-12)
    fitted = replace(evaluation, logits=evaluation.logits / found.temperature).losses.mean()
    assert found.loss_after > fitted  # a temperature looks better on the data that it was fitted on


def test_a_known_temperature_is_used_as_it_is():
    evaluation = calibrated("one", 200, 3.0)
    found = calibrate(evaluation, known=(2.0, "the validation data"))
    assert (found.temperature, found.source) == (2.0, "the validation data")
    assert found.loss_after == pytest.approx(replace(evaluation, logits=evaluation.logits / 2).losses.mean())


def test_right_answers_alone_do_not_determine_a_temperature():
    evaluation = answered("one", N=20, truth=np.zeros(20, dtype=int), logits=np.tile([4.0, 0, 0, 0], (20, 1)))
    found = calibrate(evaluation)
    assert found.temperature == pytest.approx(COLDEST, rel=1e-3)
    assert found.at_limit


@pytest.mark.parametrize("kind", ["one", "several"])
def test_expected_calibration_error_by_hand(kind):
    evaluation = calibrated(kind, 500, 2.0)
    claims = []
    for item in range(500):
        row, truth = evaluation.probabilities[item], evaluation.truth[item]
        if kind == "one":
            claims.append((row.max(), row.argmax() == truth))
        else:
            claims += [(max(p, 1 - p), (p > 0.5) == there) for p, there in zip(row, truth, strict=True)]
    error = 0.0
    for k in range(15):
        inside = [claim for claim in claims if k / 15 < claim[0] <= (k + 1) / 15]
        if inside:
            error += abs(sum(right for _, right in inside) - sum(p for p, _ in inside)) / len(claims)
    found = calibrate(evaluation)
    assert found.ece_before == pytest.approx(error, abs=1e-12)
    assert sum(item.count for item in found.bins_before) == len(claims)
    assert found.bins_before == reliability(evaluation)


# --- the run and its directory ----------------------------------------------------------------------------------------


def test_fit_and_evaluate_write_reports(run_dir, tmp_path, valid_pairs):
    saved = json.loads((run_dir / "report.json").read_text())
    model = Classifier.load(run_dir)
    scores = model.evaluate(valid_pairs)
    assert {name: score["value"] for name, score in saved["scores"].items()} | {"count": 40} == pytest.approx(scores)
    assert saved["training"]["best_epoch"] >= 1
    assert saved["kind"] == "one"
    assert all(re.fullmatch(r".*valid\.tsv:\d+", item["place"]) for item in saved["mistakes"])
    assert (run_dir / "report.html").is_file()
    card = (run_dir / "README.md").read_text(encoding="utf-8")
    assert f"| accuracy | {scores['accuracy']:.4f} |" in card
    data = tmp_path / "other.tsv"
    data.write_text("text\tlabel\na moving film\tgood\ndull\tbad\n")
    out = model.save(tmp_path / "copy")
    (out / "report.json").write_text((run_dir / "report.json").read_text())
    assert Classifier.load(out).evaluate_file(data, out)["count"] == 2
    again = json.loads((out / "report-other.json").read_text())
    assert again["calibration"]["temperature"] == saved["calibration"]["temperature"]
    assert again["calibration"]["source"].startswith("the validation data")
    assert (out / "report-other.html").is_file()
    assert not (out / "README.md").exists()


def test_temperature_is_recalled_from_an_honest_file_only(tmp_path):
    assert recall_temperature(tmp_path) is None
    found, _ = written(tmp_path, calibrated("one", 100, 2.0))
    temperature, source = recall_temperature(tmp_path)
    assert temperature == found["calibration"]["temperature"] == fit_temperature(calibrated("one", 100, 2.0))
    assert source == "the validation data (valid.tsv)"
    path = tmp_path / "report.json"
    real = path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(real)
    assert recall_temperature(tmp_path) is None
    path.unlink()
    for content in ("", "[" * 100_000, '{"calibration": 3}', '{"calibration": {"temperature": NaN}}', "[]", "\udcff"):
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
        assert recall_temperature(tmp_path) is None, content[:30]


def test_model_card_holds_hostile_names_as_text(tmp_path):
    evaluation = answered("one", labels=(HOSTILE[0], "a`b", HOSTILE[7], "d"))
    write_report(tmp_path, "report", evaluation, HISTORY, CONFIG, facts={"<b>": "*x*\n# y"})
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "\\<b\\>: \\*x\\* \\# y" in card
    assert "`` a`b ``" in card
    headings = [line for line in card.splitlines() if line.startswith("#")][1:]
    assert headings == ["## Data", "## Scores", "## Limits", "## Use", "## How it was made", "## Licence"]


def test_ticks_are_round_and_inside():
    for low, high in ((0.0, 1.0), (-3.7, 12.1), (1e-6, 3e-6), (99_000, 101_000)):
        found = ticks(low, high)
        assert 3 <= len(found) <= 9
        assert all(low - 1e-12 <= value <= high + 1e-12 for value in found)
