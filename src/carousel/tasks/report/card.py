"""The model card: the page that whoever finds a run directory reads first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["card"]

LABELS_NAMED = 30
KINDS = {
    "one": "gives one label to {what}",
    "several": "gives any number of labels to {what}",
    "number": "gives numbers to {what}",
}


def card(name: str, contents: Mapping[str, Any], advice: Sequence[str], commands: Sequence[str]) -> str:
    """The model card in Markdown. It says what was measured and nothing else.

    Args:
        name: the model's name.
        contents: what :func:`carousel.tasks.report.contents.collect` made, as JSON gives it back.
        advice: sentences on what stands out.
        commands: how to use it, one command each.
    """
    parts = [
        f"# {_line(name)}",
        _about(contents),
        *_data(contents),
        *_scores(contents),
        *_limits(contents, advice),
        "## Use",
        "```sh\n" + "\n".join(commands) + "\n```",
        *_making(contents),
        "## Licence",
        "Not stated. Whoever passes this model on says here under which terms; those of the training data may bind too.",
    ]
    return "\n\n".join(parts) + "\n"


def _about(contents: Mapping[str, Any]) -> str:
    settings = contents["settings"]
    what = "a series of numbers" if contents["facts"].get("source") == "series" else "a sequence"
    if contents["facts"].get("source") == "text":
        what = "a text"
    cell, hidden = settings.get("cell"), settings.get("hidden_size")
    network = f" Its network: {settings.get('num_layers', 1)} recurrent layer(s) of the cell {_code(cell)}" if cell else ""
    network += f" with {hidden} units" if network and hidden else ""
    both = ", read in both directions." if settings.get("bidirectional") else "."
    said = f"A recurrent network that {KINDS[contents['kind']].format(what=what)}.{network}{both if network else ''}"
    return said + f" Trained with carousel {contents['carousel']} for the task {_code(contents['task'])}."


def _data(contents: Mapping[str, Any]) -> list[str]:
    settings, labels = contents["settings"], contents["labels"]
    lines = [f"- learnt from: {_code(settings.get('train') or 'data given in Python')}"]
    lines.append(f"- validated on: {_code(contents['data'])} ({contents['count']} items)")
    named = ", ".join(_code(label) for label in labels[:LABELS_NAMED])
    more = f" and {len(labels) - LABELS_NAMED} more" if len(labels) > LABELS_NAMED else ""
    kind = "targets" if contents["kind"] == "number" else "labels"
    lines.append(f"- {len(labels)} {kind}: {named}{more}")
    lines += [f"- {_line(name)}: {_line(value)}" for name, value in contents["facts"].items()]
    return ["## Data", "\n".join(lines)]


def _scores(contents: Mapping[str, Any]) -> list[str]:
    lines = ["| score | value | 95 % interval |", "|---|---|---|"]
    for name, score in contents["scores"].items():
        low, high = (format(score[end], ".4f") if score[end] is not None else "–" for end in ("low", "high"))
        value = "–" if score["value"] is None else format(score["value"], ".4f")
        lines.append(f"| {name} | {value} | {low} to {high} |")
    baseline = contents["baseline"]
    name = baseline["score"]
    after = (
        f"Always answering {_code(baseline['answer'])} would give {name} {baseline['value']:.4f}. The best epoch was chosen on "
        "the validation data, so scores on them are a little too good; measure on data of your own before you rely on them."
    )
    files = "Curves, confusion, worst mistakes and calibration: `report.html`; the same numbers: `report.json`."
    return ["## Scores", "\n".join(lines), after, files]


def _limits(contents: Mapping[str, Any], advice: Sequence[str]) -> list[str]:
    lines = ["- Known only from the data above: other sources, times, languages or ways of writing were not measured."]
    if contents["kind"] != "number":
        lines.append("- It always answers with labels of the list above, whatever it is given.")
    lines.append("- Not examined: fairness between groups, deliberate deception.")
    return ["## Limits", "\n".join([*lines, *(f"- {_line(line)}" for line in advice)])]


def _making(contents: Mapping[str, Any]) -> list[str]:
    training = contents["training"]
    lines = ["- every option: `config.yaml`; it trains the model again with `carousel fit TASK --config config.yaml --out DIR`"]
    if training["epochs"]:
        lines.append(f"- epochs: {training['epochs']}, the best: {training['best_epoch'] or 'not known'}")
        seconds = training["history"][-1].get("seconds")
        if seconds is not None:
            lines.append(f"- minutes: {seconds / 60:.1f}")
    if contents["settings"].get("seed") is not None:
        lines.append(f"- seed: {contents['settings']['seed']}")
    return ["## How it was made", "\n".join(lines)]


def _line(text: Any) -> str:
    """Plain text on one line; what Markdown or HTML would read as markup is escaped."""
    shown = " ".join(str(text).split())
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>#|" else letter for letter in shown)


def _code(text: Any) -> str:
    """Text as it is, on one line."""
    shown = " ".join(str(text).split()).replace("|", "\\|")
    fence = "``" if "`" in shown else "`"
    return f"{fence} {shown} {fence}" if fence == "``" else f"`{shown}`"
