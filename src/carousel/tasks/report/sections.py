"""The sections of the page, in their order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from carousel.tasks.report import charts
from carousel.tasks.report.page import SHADES, Cell, escaped, paragraph, safe, section, table

__all__ = ["sections"]

MATRIX_UP_TO = 60  # labels
TARGETS_DRAWN = 4
NAME_LENGTH = 24

MEANING = {
    "accuracy": "share of right answers",
    "exact_match": "share of items whose labels are all right",
    "macro_f1": "mean F1 of the labels that occur",
    "micro_f1": "F1 over all pairs of item and label",
    "loss": "cross-entropy in nats; small is good",
    "mae": "mean absolute error, over the targets",
    "rmse": "root of the mean squared error, over the targets",
    "r2": "share of the variance that is explained",
}


def sections(contents: Mapping[str, Any], advice: Sequence[str], commands: Sequence[str]) -> list[tuple[str, str, str]]:
    """Name, title and content of each section that `contents` fills.

    Args:
        contents: what :func:`carousel.tasks.report.contents.collect` made, as JSON gives it back.
        advice: sentences on what to do.
        commands: how to go on, one command each.
    """
    parts = [
        ("summary", "Summary", _summary(contents, advice)),
        ("curves", "Learning curves", _curves(contents)),
        ("confusion", "What is taken for what", _confusion(contents)),
        ("labels", "Targets" if contents["kind"] == "number" else "Labels", _labels(contents)),
        ("numbers", "Answers against the truth", _numbers(contents)),
        ("mistakes", "Worst mistakes", _mistakes(contents)),
        ("lengths", "By length", _lengths(contents)),
        ("calibration", "Calibration", _calibration(contents)),
        ("settings", "Settings", _settings(contents)),
        ("next", "How to go on", [f"<pre>{escaped(line)}</pre>" for line in commands]),
    ]
    return [(name, title, section(name, title, body)) for name, title, body in parts if body]


def _number(value: float | None, form: str = ".4f") -> Cell:
    return Cell("–" if value is None else format(value, form), value)


def _short(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"


def _summary(contents: Mapping[str, Any], advice: Sequence[str]) -> list[str]:
    rows = [
        [name.replace("_", " "), _number(score["value"]), f"{_end(score['low'])} to {_end(score['high'])}", MEANING[name]]
        for name, score in contents["scores"].items()
    ]
    training, baseline = contents["training"], contents["baseline"]
    parts = [
        paragraph(f"{contents['count']} items: {contents['data']}."),
        table(["score", "value", "95 % interval", "meaning"], rows),
        paragraph(
            "Intervals: percentile bootstrap over the items. They say how far the score of other items of the kind may be; "
            "they do not cover another training run. A score of exactly 0 or 1 has an interval of no width; trust it only with "
            "many items.",
            "pale",
        ),
        paragraph(
            f"For comparison: always answering {baseline['answer']} gives {baseline['score'].replace('_', ' ')} "
            f"{baseline['value']:.4f}."
        ),
    ]
    if training["epochs"]:
        last = training["history"][-1]
        minutes = f", {last['seconds'] / 60:.1f} minutes" if last.get("seconds") is not None else ""
        best = f"; the weights are those of epoch {training['best_epoch']}" if training["best_epoch"] else ""
        parts.append(paragraph(f"Trained for {training['epochs']} epochs{minutes}{best}."))
    if contents["facts"]:
        parts.append(table(["about the model", ""], [[name, str(value)] for name, value in contents["facts"].items()]))
    if advice:
        parts.append("<h3>What stands out</h3><ul>" + "".join(f"<li>{safe(line)}</li>" for line in advice) + "</ul>")
    return parts


def _end(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _curves(contents: Mapping[str, Any]) -> list[str]:
    history = contents["training"]["history"]
    best = contents["training"]["best_epoch"]
    metrics = dict.fromkeys(name.partition("_")[2] for row in history for name in row if name.startswith(("train_", "valid_")))
    drawn = []
    for metric in metrics:
        curves = []
        for part, name in (("train", "training"), ("valid", "validation")):
            points = [(row["epoch"], row[f"{part}_{metric}"]) for row in history if row.get(f"{part}_{metric}") is not None]
            if points:
                curves.append(charts.Line(name, part, points))
        if curves:
            drawn.append(charts.lines(metric.replace("_", " "), curves, x_title="epoch", mark=best or None))
    rates = [(row["epoch"], row["lr"]) for row in history if row.get("lr") is not None]
    if len({rate for _, rate in rates}) > 1:
        drawn.append(charts.lines("learning rate", [charts.Line("learning rate", "train", rates)], x_title="epoch"))
    if not drawn:
        return []
    return [f'<div class="charts">{"".join(drawn)}</div>', paragraph("The dashed line marks the best epoch.", "pale")]


def _confusion(contents: Mapping[str, Any]) -> list[str]:
    found = contents["confusion"]
    if found is None:
        return []
    parts = []
    labels, counts = contents["labels"], found["counts"]
    if counts is not None and len(labels) <= MATRIX_UP_TO:
        parts.append(paragraph("Rows: the truth. Columns: the answer. The shade is the share of the row.", "pale"))
        parts.append(_matrix(labels, counts))
    if found["pairs"]:
        rows: list[list[str | Cell]] = [[pair["truth"], pair["answer"], _number(pair["count"], "d")] for pair in found["pairs"]]
        parts += ["<h3>Most frequent mistakes</h3>", table(["truth", "answer", "items"], rows)]
    else:
        parts.append(paragraph("No item is answered wrongly."))
    return parts


def _matrix(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    head = "".join(f'<th scope="col">{safe(_short(name))}</th>' for name in labels)
    lines = []
    for name, row in zip(labels, counts, strict=True):
        total = max(1, sum(row))
        cells = "".join(f'<td class="c{round((SHADES - 1) * count / total)}">{count or ""}</td>' for count in row)
        lines.append(f'<tr><th scope="row">{safe(_short(name))}</th>{cells}</tr>')
    few = " few" if len(labels) <= 6 else ""
    return (
        f'<div class="wide"><table class="confusion{few}"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _labels(contents: Mapping[str, Any]) -> list[str]:
    rows: list[list[str | Cell]]
    if contents["kind"] == "number":
        columns = ["mae", "rmse", "r2", "mean", "deviation"]
        rows = [[row["label"], *(_number(row[name], ".5g") for name in columns)] for row in contents["table"]]
        return [table(["target", "MAE", "RMSE", "R²", "mean of the truth", "its deviation"], rows, sortable=True)]
    shares, counts = ["precision", "recall", "f1"], ["support", "answered"]
    rows = [
        [row["label"], *(_number(row[name], ".3f") for name in shares), *(_number(row[name], "d") for name in counts)]
        for row in contents["table"]
    ]
    note = "A click on a heading sorts. Precision: share of the answers that are right. Recall: share of the true ones found."
    return [paragraph(note, "pale"), table(["label", "precision", "recall", "F1", "true", "answered"], rows, sortable=True)]


def _numbers(contents: Mapping[str, Any]) -> list[str]:
    if not contents["numbers"]:
        return []
    drawn = []
    for target in contents["numbers"][:TARGETS_DRAWN]:
        residuals, name = target["residuals"], _short(target["label"])
        drawn.append(charts.scatter(f"{name}: answer over truth", target["points"], x_title="truth"))
        title = f"{name}: answer − truth"
        drawn.append(charts.histogram(title, residuals["edges"], residuals["counts"], x_title="residual"))
    more = len(contents["numbers"]) - TARGETS_DRAWN
    return [f'<div class="charts">{"".join(drawn)}</div>', paragraph(f"And {more} more targets.", "pale") if more > 0 else ""]


def _mistakes(contents: Mapping[str, Any]) -> list[str]:
    if not contents["mistakes"]:
        return [paragraph("No item is answered wrongly.")]
    said = "Those with the largest loss first."
    if contents["kind"] == "number":
        said = "Those farthest off first, in deviations of the truth."
    if "attention" in contents["mistakes"][0]:
        said += " The darker a token, the more of the attention lies on it."
    return [paragraph(said, "pale"), *(_mistake(item) for item in contents["mistakes"])]


def _mistake(item: Mapping[str, Any]) -> str:
    if "confidence" in item:
        answer = f"{safe(item['answer'])} ({item['confidence']:.1%})"
        truth = f"{safe(item['truth'])} ({item['truth_probability']:.1%})"
    else:
        answer, truth = (safe(_joined(item[name])) for name in ("answer", "truth"))
    place = f' <span class="pale">{safe(item["place"])}</span>' if item["place"] else ""
    head = f"<p>answer <b>{answer}</b>, truth <b>{truth}</b>{place}</p>"
    words = _coloured(item["attention"], item["text"]) if item.get("attention") else safe(item["text"])
    return f'<div class="item">{head}<p class="words">{words}</p></div>'


def _joined(value: Sequence[Any]) -> str:
    return ", ".join(f"{item:.5g}" if isinstance(item, float) else str(item) for item in value) or "none"


def _coloured(pairs: Sequence[Sequence[Any]], text: str) -> str:
    """Tokens, shaded by their weight beside the largest one."""
    most = max(weight for _, weight in pairs) or 1.0
    glued = all(len(token) <= 1 for token, _ in pairs) or "".join(token for token, _ in pairs).lower() == text.lower()
    return ("" if glued else " ").join(
        safe(token).replace("<bdi>", f'<bdi class="a{round((SHADES - 1) * weight / most)}" title="{weight:.3f}">', 1)
        for token, weight in pairs
    )


def _lengths(contents: Mapping[str, Any]) -> list[str]:
    found = contents["lengths"]
    number = contents["kind"] == "number"
    what = "mean absolute error" if number else "share of items answered right"
    items = [charts.Whisker(_span(row), row["value"], row["low"], row["high"], f"{row['count']} items") for row in found]
    rows: list[list[str | Cell]] = [
        [_span(row), _number(row["count"], "d"), _number(row["value"]), f"{_end(row['low'])} to {_end(row['high'])}"]
        for row in found
    ]
    interval = "Student's" if number else "Wilson's"
    return [
        f'<div class="charts">{charts.whiskers(what, items, x_title="tokens or steps", share=not number)}</div>',
        table(["length", "items", what, "95 % interval"], rows),
        paragraph(f"Slices of about equally many items. Intervals: {interval}.", "pale"),
    ]


def _span(row: Mapping[str, Any]) -> str:
    return str(row["longest"]) if row["shortest"] == row["longest"] else f"{row['shortest']}–{row['longest']}"


def _calibration(contents: Mapping[str, Any]) -> list[str]:
    found = contents["calibration"]
    if found is None:
        return []
    fitted = found["source"] == "these data"
    how = (
        "It was fitted on these same data; so that the numbers after it are honest, they are cross-fitted: each half of "
        "the items is scaled with the temperature of the other half."
        if fitted
        else f"It comes from {found['source']}, not from these data."
    )
    limit = " It lies at a limit of the search: these data do not determine it." if found["at_limit"] else ""
    rows: list[list[str | Cell]] = [
        ["expected calibration error", _number(found["ece_before"]), _number(found["ece_after"])],
        ["loss (nats)", _number(found["loss_before"]), _number(found["loss_after"])],
    ]
    return [
        f'<div class="charts">{charts.reliability("right, by confidence", found["bins_before"], found["bins_after"])}</div>',
        table(["", "as it is", "with the temperature"], rows),
        paragraph(
            f"Temperature: {found['temperature']:.3f}. The scores before the softmax (the sigmoid, with several labels) are "
            f"divided by it; answers do not change (Guo et al. 2017, arXiv:1706.04599). {how}{limit}"
        ),
        paragraph(
            "Points on the diagonal: of claims with a confidence of 80 %, 80 % are right. Bars are Wilson's 95 % "
            "intervals. The error is the mean distance from the diagonal over 15 equal parts; few items never give quite 0.",
            "pale",
        ),
    ]


def _settings(contents: Mapping[str, Any]) -> list[str]:
    rows: list[list[str | Cell]] = [[name, _plain(value)] for name, value in contents["settings"].items()]
    return [table(["option", "value"], rows), paragraph(f"Written by carousel {contents['carousel']}.", "pale")]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
