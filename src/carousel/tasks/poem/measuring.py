"""What a poet is worth: how well it predicts the poems of others, and what its own are like."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from carousel.tasks.poem.checking import chance_of_rhyme, rhyming_share, score_poems
from carousel.tasks.poem.forms import FORMS, MAX_LENGTH, Form
from carousel.tasks.poem.poems import Poem, tune_names
from carousel.tasks.poem.wishes import Wish

if TYPE_CHECKING:
    from carousel.tasks.poem.inputs import PoemInputs, PoemRow
    from carousel.tasks.poem.task import Poet

__all__ = ["measure_read", "measure_written"]

WRITTEN = 200  # poems that are written, after the titles and forms of those that are read
LONGEST = 24  # lines of these


def measure_read(losses: Sequence[NDArray[np.float32]], rows: Sequence[PoemRow]) -> dict[str, float]:
    """The perplexity of the characters of lines, and how many of them are not known.

    Args:
        losses: of these characters, in nats, poem by poem.
        rows: the poems.
    """
    numbers = np.concatenate([row.numbers[row.counted] for row in rows])
    mean = sum(float(part.sum(dtype=np.float64)) for part in losses) / len(numbers)
    try:
        perplexity = math.exp(mean)
    except OverflowError:
        perplexity = math.inf
    unknown = float((numbers == 0).mean())
    return {"perplexity": perplexity, "nats_per_char": mean, "characters": len(numbers), "unknown": unknown}


def measure_written(poet: Poet, poems: Sequence[Poem], known: frozenset[str] | None) -> dict[str, float]:
    """What poems are like that are written to the titles and forms of others.

    Args:
        poet: writes them.
        poems: the others.
        known: the lines of the training data, if they are at hand.
    """
    inputs = poet.inputs_
    short = [poem for poem in poems if len(poem.lines) <= LONGEST and max(poem.lengths) <= MAX_LENGTH]
    chosen = short[:: -(-len(short) // WRITTEN)] if short else []
    forms = [_form_of(poem, inputs) for poem in chosen]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # titles of other poems hold unknown characters
        written = poet.write_all([_wish(poem, form) for poem, form in zip(chosen, forms, strict=True)], seed=1)
    pairs = list(zip(chosen, forms, strict=True))
    found = asdict(score_poems(written, forms, inputs.rhymes, known)) | {
        "rhyming_read": rhyming_share(pairs, inputs.rhymes),
        "rhyming_chance": chance_of_rhyme(pairs, inputs.rhymes),
    }
    return {{"count": "written"}.get(name, name): value for name, value in found.items() if value is not None}


def _wish(poem: Poem, form: Form) -> Wish:
    return Wish(poem.title, tune=form.name) if poem.tune and form.name else Wish(poem.title, form)


def _form_of(poem: Poem, inputs: PoemInputs) -> Form:
    """The form of a poem, with the rhymes that are usual in it."""
    named: Iterable[Form] = FORMS.values()
    if poem.tune:
        named = [inputs.tunes[name] for name in reversed(tune_names(poem.tune)) if name in inputs.tunes]
    found = next((form for form in named if form.lengths == poem.lengths), None)
    return found or Form(poem.lengths, poem.stops, Form.of(poem.lengths).scheme)
