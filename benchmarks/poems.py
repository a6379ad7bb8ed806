"""A thousand poems across forms and prompts: do they keep their form, do they rhyme, are lines copied, how long does it take?

Nothing is trained: DIR is the run of a poet. FILE holds its training data (for the share of copied lines), HELD poems that
it has not seen: their titles, first lines and first characters are the prompts, and their rhymes what the poems' are
compared with. A poem keeps its form if its text has the lines asked for, each of its length in Chinese characters, and
nothing else; that is checked on the text alone.

    python benchmarks/poems.py DIR --train FILE --held HELD
    python benchmarks/poems.py DIR --train FILE --held HELD --count 100 --json poems.json

Rows: each form with a name from titles, acrostics and first lines; the tunes with most poems; lengths drawn at random; and
prompts that mean harm (signs of the model's own, other scripts, characters that no poem has, thousands of characters).
"""

from __future__ import annotations

import argparse
import json
import random
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from timing import machine, table

from carousel.tasks import Poet
from carousel.tasks.poem import FORMS, Poem, Wish, read_poems, score_poems
from carousel.tasks.poem.checking import chance_of_rhyme, rhyming_share
from carousel.tasks.poem.wishes import plan

TUNES = 30
RARE = "龘㐀𠀀〇春"
HOSTILE = [
    "",
    "<7>",
    "\ue000\ue11c\n",
    "spring, in prose please",
    "春" * 5000,
    "🌸🌸",
    "\x00\x1b[1m",
    "□□",
    "，。，。",
    "\ud800",
]


def wishes(poet: Poet, held: list[Poem], count: int, seed: int) -> dict[str, list[Wish]]:
    """About `count` wishes, by kind."""
    draw = random.Random(seed)
    tunes = list(poet.inputs_.tunes)[:TUNES]
    titles = [poem.title for poem in held if poem.title]

    def line(length: int) -> str:
        return draw.choice([line for poem in held for line in poem.lines if len(line) == length])

    def lengths() -> list[int]:
        return [draw.randint(1, 12) for _ in range(draw.randint(1, 16))]

    kinds: dict[str, Callable[[], Wish]] = {}
    for name, form in FORMS.items():
        lines, length = len(form.lengths), form.lengths[0]
        kinds[f"{name}, title"] = lambda name=name: Wish(draw.choice(titles), name)
        kinds[f"{name}, acrostic"] = lambda name=name, lines=lines: Wish(
            form=name, acrostic="".join(draw.choice(held).lines[0][0] for _ in range(lines))
        )
        kinds[f"{name}, first line"] = lambda name=name, length=length: Wish(form=name, first=line(length))
    if tunes:
        kinds["a tune"] = lambda: Wish(tune=draw.choice(tunes))
    kinds["any lengths"] = lambda: Wish(draw.choice(titles), lengths())
    kinds["prompts that mean harm"] = lambda: Wish(
        draw.choice(HOSTILE), draw.choice([*FORMS, "5,5,7"]), acrostic="".join(draw.choices(RARE, k=draw.randint(0, 3)))
    )
    sizes = [count // len(kinds) + (place < count % len(kinds)) for place in range(len(kinds))]
    return {kind: [make() for _ in range(size)] for (kind, make), size in zip(kinds.items(), sizes, strict=True)}


def measured(poet: Poet, asked: list[Wish], known: frozenset[str] | None, seed: int) -> tuple[list[Poem], dict[str, Any]]:
    """Write poems, and what they are worth."""
    start, cpu = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        poems = poet.write_all(asked, seed=seed)
    seconds = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    forms = [plan(wish, poet.inputs_.tunes).form for wish in asked]
    begun = sum(
        "，".join(poem.lines).startswith(wish.first) and "".join(line[0] for line in poem.lines).startswith(wish.acrostic)
        for poem, wish in zip(poems, asked, strict=True)
    )
    return poems, asdict(score_poems(poems, forms, poet.inputs_.rhymes, known)) | {"begun": begun / len(poems)} | seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument("--train", metavar="FILE", help="the training data")
    parser.add_argument("--held", metavar="HELD", required=True, help="poems that were not trained on")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=0, help="print so many poems of each kind")
    parser.add_argument("--json", metavar="FILE", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    poet = Poet.load(given.directory, device="cpu")
    held = list(read_poems(given.held).poems)
    known = None
    if given.train:
        known = frozenset(line for poem in read_poems(given.train).poems for line in poem.lines)
    asked = wishes(poet, held, given.count, given.seed)
    rows, every = [], []
    for kind, some in asked.items():
        if some:
            poems, found = measured(poet, some, known, given.seed)
            rows.append({"what": kind} | found)
            every += poems
            for poem in poems[: given.show]:
                print(f"{poem}\n")
    forms = [plan(wish, poet.inputs_.tunes).form for some in asked.values() for wish in some]
    total = asdict(score_poems(every, forms, poet.inputs_.rhymes, known))
    for key in ("seconds", "cpu_seconds"):
        total[key] = sum(row[key] for row in rows)
    total["begun"] = sum(row["begun"] * row["count"] for row in rows) / len(every)
    rows.append({"what": "all"} | total)
    pairs = [(poem, form) for poem in held for form in FORMS.values() if form.lengths == poem.lengths]
    human, chance = rhyming_share(pairs, poet.inputs_.rhymes), chance_of_rhyme(pairs, poet.inputs_.rhymes)
    names = ("count", "forms_kept", "begun", "rhyming", "copied", "distinct_2", "distinct_lines", "seconds", "cpu_seconds")
    cells = [[str(row["what"]), *(_shown(row[name]) for name in names)] for row in rows]
    print(table(["poems", *names], cells))
    print(f"\npoems of HELD in the same four forms: {_shown(human)} of the pairs rhyme; of pairs by chance {_shown(chance)}")
    if given.json:
        told = {"machine": machine(), "rows": rows, "rhyming_read": human, "rhyming_chance": chance}
        given.json.write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n")
    if total["forms_kept"] != 1.0 or total["begun"] != 1.0:
        raise SystemExit("a poem does not keep its form, or does not begin as it was given")
    print(f"\nall {len(every):,} poems keep their form and begin as given")


def _shown(value: Any) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"


if __name__ == "__main__":
    main()
