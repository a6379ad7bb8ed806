"""Does a verb agree with its subject, however far away? Sentences from templates, and which of two verbs is likelier."""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from carousel.tasks.lm.blanks import Blank, fill_blanks

if TYPE_CHECKING:
    from carousel.tasks.lm.task import LanguageModel

__all__ = ["AgreementScore", "agreement_sentences", "score_agreement"]

# Singular and plural.
SUBJECTS = (
    ("company", "companies"), ("bank", "banks"), ("man", "men"), ("woman", "women"), ("worker", "workers"),
    ("manager", "managers"), ("investor", "investors"), ("cat", "cats"), ("student", "students"), ("group", "groups"),
    ("plan", "plans"), ("house", "houses"), ("child", "children"), ("doctor", "doctors"), ("lawyer", "lawyers"),
)  # fmt: skip
VERBS = (("was", "were"), ("is", "are"), ("has", "have"))
ENDINGS = {"was": "sold", "is": "here", "has": "changed"}
# What may stand between, with the number of the noun nearest to the verb: none, or one to lead astray.
BETWEEN = (
    ("", None), ("near the park", "singular"), ("of the two countries", "plural"), ("in the city", "singular"),
    ("with the old friends", "plural"), ("that we saw last year", "singular"), ("which already had many problems", "plural"),
    ("from the other side of the street", "singular"), ("behind the big red cars of my friends", "plural"),
    ("that the two men had always talked about in the past", "singular"),
    ("which the president of the american union bought for some of his directors", "plural"),
)  # fmt: skip


@dataclass(frozen=True)
class AgreementScore:
    """How often the verb that agrees was the likelier one.

    Args:
        accuracy: the share over all sentences.
        by_distance: words between subject and verb, to share and number of sentences.
        attracted: the share where the nearest noun has the other number than the subject; None without such sentences.
        count: how many sentences there were.
    """

    accuracy: float
    by_distance: dict[int, tuple[float, int]]
    attracted: float | None
    count: int


def agreement_sentences(
    *, most: int | None = None, seed: int = 1, known: Collection[str] | None = None
) -> list[tuple[Blank, int, bool]]:
    """Make sentences with a choice of two verbs.

    Args:
        most: so many of them, chosen by `seed`; None for all.
        seed: chooses.
        known: the words that a model knows: sentences with others are left out. None for all.

    Returns:
        For each the sentence, the words between subject and verb, and whether the nearest noun has the other number.

    Example:
        >>> sentences = agreement_sentences()
        >>> str(sentences[0][0]), sentences[0][0].candidates[sentences[0][0].right], sentences[0][1:]
        ('the company [was|were] sold', 'was', (0, False))
    """
    made = []
    for subject, verb, (words, nearest) in itertools.product(SUBJECTS, VERBS, BETWEEN):
        for number in (0, 1):
            before = " ".join(part for part in ("the", subject[number], words) if part)
            used = [*before.split(), *verb, ENDINGS[verb[0]]]
            if known is None or all(word in known for word in used):
                blank = Blank(f"{before} ", verb, f" {ENDINGS[verb[0]]}", number)
                made.append((blank, len(words.split()), nearest is not None and nearest != ("singular", "plural")[number]))
    if most is not None and most < len(made):
        made = random.Random(seed).sample(made, most)  # noqa: S311 - a choice that can be made again, no secret
    return made


def score_agreement(
    sentences: Sequence[tuple[Blank, int, bool]], forward: LanguageModel, backward: LanguageModel | None = None
) -> AgreementScore:
    """Let models choose the verbs.

    Args:
        sentences: from :func:`agreement_sentences`.
        forward: the model.
        backward: a second one that reads backward, or None.
    """
    found = fill_blanks([sentence for sentence, _, _ in sentences], forward, backward)
    right = [one.best == one.blank.right for one in found]
    far: dict[int, list[bool]] = {}
    for good, (_, distance, _) in zip(right, sentences, strict=True):
        far.setdefault(distance, []).append(good)
    led = [good for good, (_, _, astray) in zip(right, sentences, strict=True) if astray]
    return AgreementScore(
        accuracy=_share(right),
        by_distance={distance: (_share(far[distance]), len(far[distance])) for distance in sorted(far)},
        attracted=_share(led) if led else None,
        count=len(right),
    )


def _share(answers: Sequence[bool]) -> float:
    return sum(answers) / len(answers) if answers else 0.0
