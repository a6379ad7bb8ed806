"""The frame of the page: style sheet, script, and the policy that forbids everything else.

The page is one file. Its policy (a hash for the one style sheet and the one script) lets a browser load nothing and run
nothing besides, whatever stands in the data.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Cell", "escaped", "paragraph", "render", "safe", "section", "table"]

UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, halves of surrogate pairs
SHADES = 11  # of attention and of confusion: 0, 10, ..., 100 %

STYLE = """
:root{color-scheme:light dark;--ink:#22303c;--pale:#5d6b78;--paper:#fff;--line:#dfe4ea;--soft:#f3f5f8;--good:#2b7a78;
--train:#7a8ca3;--valid:#c83e52;--shade:200,62,82;--blue:38,110,180}
@media(prefers-color-scheme:dark){:root{--ink:#dde4ea;--pale:#9aa8b5;--paper:#14191e;--line:#2c353d;--soft:#1c2329;
--good:#6cc5c1;--train:#8fa3bb;--valid:#ff7a8c;--shade:255,122,140;--blue:90,160,235}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1080px;padding:24px 20px 80px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:40px 0 8px;padding-top:12px;border-top:1px solid var(--line)}
h3{font-size:15px;margin:20px 0 6px}p{max-width:75ch;margin:8px 0}.pale{color:var(--pale)}
nav a{color:inherit;margin-right:14px}
code,pre{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{background:var(--soft);padding:10px 12px;border-radius:6px;overflow-x:auto;white-space:pre-wrap;overflow-wrap:anywhere}
.wide{overflow-x:auto}table{border-collapse:collapse;margin:8px 0;font-variant-numeric:tabular-nums}
th,td{padding:4px 10px;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}td.n,th.n{text-align:right}
th button{font:inherit;font-weight:bold;color:inherit;background:none;border:0;padding:0;cursor:pointer}
th button:hover,th button:focus-visible{text-decoration:underline}
th[aria-sort=ascending] button::after{content:" \\2191"}th[aria-sort=descending] button::after{content:" \\2193"}
.charts{display:flex;flex-wrap:wrap;gap:12px}.charts svg{flex:1 1 380px;max-width:520px;height:auto}
svg text{font-size:11px;fill:var(--pale)}svg text.title{font-size:13px;font-weight:bold;fill:var(--ink)}
.grid{stroke:var(--line);stroke-width:1}.mark{stroke:var(--pale);stroke-width:1;stroke-dasharray:3 4}
.curve{fill:none;stroke-width:2;stroke-linejoin:round}.curve.train{stroke:var(--train)}.curve.valid{stroke:var(--valid)}
.dot.train{fill:var(--train)}.dot.valid{fill:var(--valid)}.dot.faint{opacity:.5}.bar{fill:var(--train)}
.whisker{stroke-width:1.6}.whisker.valid{stroke:var(--valid)}
.item{border:1px solid var(--line);border-radius:6px;padding:10px 12px;margin:10px 0;overflow-wrap:anywhere}
.item p{max-width:none;margin:4px 0}.words{line-height:1.9}.words bdi{border-radius:3px;padding:1px 2px}
table.confusion td,table.confusion th{text-align:center;padding:3px 6px;border:1px solid var(--paper);font-size:13px}
table.confusion th[scope=row]{text-align:right}table.confusion thead th{writing-mode:vertical-rl}
table.confusion.few thead th{writing-mode:horizontal-tb}
@media print{body{max-width:none}nav{display:none}}
""" + "".join(
    f".{kind}{level}{{background:rgba(var(--{colour}),{strength * level:.3f})}}"
    for kind, colour, strength in (("a", "shade", 0.06), ("c", "blue", 0.075))
    for level in range(SHADES)
)

SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.closest("th"), body = head.closest("table").tBodies[0], at = head.cellIndex;
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const text = (row) => row.cells[at].textContent;
  const value = (row) => row.cells[at].dataset.v === "" ? -Infinity : +row.cells[at].dataset.v;
  const number = head.classList.contains("n");
  const order = (a, b) => number ? (value(a) === value(b) ? 0 : value(a) - value(b)) : text(a).localeCompare(text(b));
  body.append(...[...body.rows].sort((a, b) => down ? order(b, a) : order(a, b)));
});
"""


@dataclass(frozen=True)
class Cell:
    """A number in a table.

    Args:
        text: what is shown.
        value: what is sorted by; None sorts below all numbers.
    """

    text: str
    value: float | None


def escaped(text: object) -> str:
    """`text` as a page can hold it: nothing in it is markup or a control character."""
    return html.escape(UNSHOWN.sub(chr(0xFFFD), str(text)))


def safe(text: object) -> str:
    """:func:`escaped`, and its direction of writing stays inside."""
    return f"<bdi>{escaped(text)}</bdi>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    said = f' class="{kind}"' if kind else ""
    return f"<p{said}>{escaped(text)}</p>"


def section(name: str, title: str, body: Iterable[str]) -> str:
    """A section that `name` leads to."""
    return f'<section id="{name}"><h2>{escaped(title)}</h2>{"".join(body)}</section>\n'


def table(header: Sequence[str], rows: Sequence[Sequence[str | Cell]], *, sortable: bool = False) -> str:
    """A table; a column is of numbers if its first cell is one.

    Args:
        header: the names of the columns.
        rows: texts, which are escaped here, and numbers.
        sortable: whether a click on a heading sorts.
    """
    numbers = [bool(rows) and isinstance(rows[0][at], Cell) for at in range(len(header))]
    heads = []
    for name, number in zip(header, numbers, strict=True):
        shown = f'<button type="button">{escaped(name)}</button>' if sortable else escaped(name)
        heads.append(f'<th scope="col"{" class=n" if number else ""}>{shown}</th>')
    lines = ["".join(_cell(value) for value in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{"".join(heads)}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: str | Cell) -> str:
    if isinstance(value, Cell):
        key = "" if value.value is None else repr(value.value)
        return f'<td class="n" data-v="{key}">{escaped(value.text)}</td>'
    return f"<td>{safe(value)}</td>"


def render(title: str, subtitle: str, sections: Sequence[tuple[str, str, str]]) -> bytes:
    """The whole page.

    Args:
        title: its heading, plain text.
        subtitle: a line below it, plain text.
        sections: name, title and content (as :func:`section` made it) of each.

    Returns:
        The page in UTF-8.
    """
    policy = f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; base-uri 'none'; form-action 'none'"
    links = "".join(f'<a href="#{name}">{escaped(heading)}</a>' for name, heading, _ in sections)
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{escaped(title)}</title><style>{STYLE}</style></head><body>\n"
        f'<header><h1>{safe(title)}</h1><p class="pale">{safe(subtitle)}</p><nav>{links}</nav></header>\n'
        + "".join(content for _, _, content in sections)
        + f"<script>{SCRIPT}</script></body></html>\n"
    )
    return page.encode("utf-8", "replace")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
