"""The input embeddings of a language model as word vectors: written, compared, measured against people's judgements."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from carousel.data import numbered_lines
from carousel.errors import ConfigError, DataError, explain, unknown_name
from carousel.files import replacing

if TYPE_CHECKING:
    from carousel.tasks.lm.network import LanguageNetwork
    from carousel.tasks.lm.task import LanguageModel

__all__ = ["correlation", "embeddings", "nearest", "spearman", "write_vectors"]


def embeddings(model: LanguageModel) -> tuple[list[str], npt.NDArray[np.float32]]:
    """The tokens that have a vector, and their vectors, (N, F): all but the unknown one and what holds a blank or a line's end.

    Args:
        model: the model.
    """
    weight = cast("LanguageNetwork", model.network_).embedding.weight.detach().float().cpu().numpy()
    kept = [
        number for number, token in enumerate(model.inputs_.tokens) if number and token and not any(map(str.isspace, token))
    ]
    return [model.inputs_.tokens[number] for number in kept], weight[kept]


def write_vectors(model: LanguageModel, path: str | os.PathLike[str]) -> int:
    """Write the vectors in word2vec's text format: a line with number and size, then a token and its numbers on each line.

    Args:
        model: the model.
        path: the file.

    Returns:
        How many were written.

    Raises:
        OutputError: the file cannot be written.
    """
    tokens, matrix = embeddings(model)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write(f"{len(tokens)} {matrix.shape[1]}\n")
        for token, row in zip(tokens, matrix, strict=True):
            stream.write(f"{token} {' '.join(f'{value:.6g}' for value in row.tolist())}\n")
    return len(tokens)


def nearest(model: LanguageModel, word: str, count: int = 10) -> list[tuple[str, float]]:
    """The tokens whose vectors point most nearly where this one's does.

    Args:
        model: the model.
        word: a token that it knows.
        count: how many.

    Returns:
        Pairs of token and cosine, the nearest first.

    Raises:
        ConfigError: the model does not know the word; the message names the nearest spelling.
    """
    tokens, matrix = embeddings(model)
    if word not in tokens:
        close = [token for token in tokens if token[:1].lower() == word[:1].lower()][:20_000]
        raise ConfigError(unknown_name("word", word, close).split("\n")[0])
    units = _units(matrix)
    place = tokens.index(word)
    cosines = units @ units[place]
    cosines[place] = -np.inf
    best = np.argsort(-cosines, kind="stable")[: min(count, len(tokens) - 1)]
    return [(tokens[number], float(cosines[number])) for number in best.tolist()]


def correlation(model: LanguageModel, path: str | os.PathLike[str]) -> tuple[float, int, int]:
    """The rank correlation of cosines with people's judgements of similarity.

    Args:
        model: the model.
        path: lines of two words and a number, between blanks or tabs.

    Returns:
        Spearman's correlation over the pairs whose words are both known (as written, or in small letters), their number, and
        that of all pairs.

    Raises:
        DataError: the file cannot be read, a line is written otherwise, or fewer than two pairs are known.
    """
    tokens, matrix = embeddings(model)
    place, units = {token: number for number, token in enumerate(tokens)}, _units(matrix)
    cosines, judged, total = [], [], 0
    for number, line in numbered_lines(path):
        cells = line.split()
        if not cells:
            continue
        try:
            left, right, value = cells[0], cells[1], float(cells[2])
        except (IndexError, ValueError) as error:
            what, expected = "not two words and a number.", "word word number"
            raise DataError(explain(what, got=line[:80], expected=expected), path=str(path), line=number) from error
        total += 1
        pair = [place.get(word, place.get(word.lower())) for word in (left, right)]
        if pair[0] is not None and pair[1] is not None:
            cosines.append(float(units[pair[0]] @ units[pair[1]]))
            judged.append(value)
    if len(cosines) < 2:
        raise DataError(explain("fewer than two pairs of words are known.", got=f"{len(cosines)} of {total}"), path=str(path))
    return spearman(cosines, judged), len(cosines), total


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation; equal numbers share the mean of their ranks. 0 where one side is all equal.

    Args:
        first: N numbers.
        second: N numbers.

    Example:
        >>> spearman([1.0, 2.0, 3.0, 4.0], [10.0, 30.0, 20.0, 40.0])
        0.8
    """
    ranks = [_ranks(np.asarray(values, np.float64)) for values in (first, second)]
    left, right = (one - one.mean() for one in ranks)
    spread = float(np.sqrt((left**2).sum() * (right**2).sum()))
    return float((left * right).sum()) / spread if spread else 0.0


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean: npt.NDArray[np.float64] = (ends - (counts - 1) / 2)[place]
    return mean


def _units(matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    return (matrix / np.where(lengths > 0, lengths, 1)).astype(np.float32)
