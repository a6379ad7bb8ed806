"""What a person, and a program, read after a run: ``report.html``, ``report.json`` and the model card ``README.md``.

``docs/reports.md`` explains every section and every key.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from carousel.files import write_file
from carousel.tasks.evaluation import Evaluation
from carousel.tasks.report.advice import advise
from carousel.tasks.report.card import card
from carousel.tasks.report.contents import collect, plain
from carousel.tasks.report.page import render
from carousel.tasks.report.sections import sections

__all__ = ["RUN_REPORT", "recall_temperature", "write_report"]

RUN_REPORT = "report"
CARD_FILE = "README.md"
MAX_JSON = 1 << 24  # bytes; ours are smaller


def write_report(
    out: str | os.PathLike[str],
    name: str,
    evaluation: Evaluation,
    history: Sequence[Mapping[str, float]],
    config: Mapping[str, Any],
    *,
    data: str | None = None,
    best_epoch: int = 0,
    facts: Mapping[str, Any] | None = None,
    temperature: tuple[float, str] | None = None,
) -> dict[str, Any]:
    """Write ``NAME.html`` and ``NAME.json``, and for the report of the run itself also the model card.

    Args:
        out: the run directory.
        name: `report` for the run itself, another name for a report about other data.
        evaluation: the answers beside the truth.
        history: one row per epoch, as in ``metrics.csv``.
        config: the resolved configuration.
        data: what the items are; None says that they are the validation data.
        best_epoch: the epoch whose weights answered, 0 if not known.
        facts: what else is known of the model, by name: its parameters, say. `source` may be text or series.
        temperature: a temperature from other data and the name of these; None fits one to these data.

    Returns:
        What ``NAME.json`` holds.

    Raises:
        OutputError: a file cannot be written.
    """
    out = Path(out)
    if data is None:
        data = str(config.get("valid") or "held out from the training data")
    found = collect(evaluation, history, config, data=data, best_epoch=best_epoch, facts=facts or {}, temperature=temperature)
    found["advice"] = plain(advise(found))
    commands = _commands(out, config)
    subtitle = f"{found['task']}: measured on {data}. carousel {found['carousel']}."
    page = render(f"Report: {out.name}", subtitle, sections(found, found["advice"], commands))
    text = json.dumps(found, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    write_file(out / f"{name}.json", text.encode() + b"\n")
    write_file(out / f"{name}.html", page)
    if name == RUN_REPORT:
        words = card(out.name, found, found["advice"], commands)
        write_file(out / CARD_FILE, words.encode("utf-8", "replace"))
    return found


def recall_temperature(out: str | os.PathLike[str]) -> tuple[float, str] | None:
    """The temperature that the run's own report found, and the data it was found on; None if there is none.

    Args:
        out: the run directory.
    """
    path = Path(out) / f"{RUN_REPORT}.json"
    try:
        # A run directory may come from anyone: a link could lead out of it, a pipe would never end.
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_JSON:
            return None
        found = json.loads(path.read_bytes())
        value = float(found["calibration"]["temperature"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None  # a report is not part of the model: without one, a temperature is fitted anew
    return (value, f"the validation data ({str(found.get('data'))[:200]})") if 0.01 <= value <= 100 else None


def _commands(out: Path, config: Mapping[str, Any]) -> list[str]:
    where = shlex.quote(str(out))
    code = " --code FILE.py" if config.get("custom_cell") else ""
    return [
        f"carousel predict {where} FILE{code}",
        f"carousel evaluate {where} --data FILE{code}",
        f"carousel compare {where} OTHER_RUN --data FILE",
        f"carousel fit {config.get('task', 'TASK')} --out {where} --resume --epochs N{code}",
    ]
