"""What a tagger does with sentences: tags them, cuts them into words, writes and shows what it found."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from carousel.data.tagged import TaggedSentence, spans, tagged_lines, to_words
from carousel.errors import ConfigError, DataError, explain
from carousel.tasks.tag.inputs import PREDICT_BATCH_SIZE, TaggerInputs
from carousel.tasks.tag.sources import bare_sentences, pair_up

if TYPE_CHECKING:
    from torch import nn

    from carousel.structured import LinearChain
    from carousel.tasks.tag.batches import TagBatch
    from carousel.tasks.tag.network import TagNetwork
    from carousel.tasks.tag.options import TaggerOptions

__all__ = ["TagAnswers"]


class TagAnswers:
    """What :class:`carousel.tasks.Tagger` answers with."""

    options: TaggerOptions
    inputs_: TaggerInputs
    network_: nn.Module
    _device: str

    _require_fitted: Callable[[str], None]

    def predict(self, X: Any) -> list[list[str]]:
        """Tag sentences.

        Args:
            X: a list of sentences: lists of words, or texts with blanks between the words; of characters, texts.

        Returns:
            For each sentence its tags, written as the training data writes them.

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            DataError: `X` is one text, or holds something else than sentences.
        """
        return [answer["tags"] for answer in self.predict_records(X)]

    def segment(self, X: Any) -> list[list[str]]:
        """Cut texts into words, with a model that tags characters.

        Args:
            X: texts, or lists of characters.

        Returns:
            For each text its words.

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            ConfigError: the model tags words.
        """
        self._require_fitted("segment")
        if self.options.unit != "char":
            raise ConfigError(explain("segment: the model tags words.", advice="train with unit=char"))
        found = bare_sentences("segment", X, self.options)
        scheme = self.inputs_.tags.data_scheme or "bmes"
        return [list(to_words(s, a["tags"], scheme).words) for s, a in zip(found, self._answers(found), strict=True)]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of tokens with the right tag, 0 to 1.

        Args:
            X: sentences, as for :meth:`predict`.
            y: a list of tags for each.
            sample_weight: (N,), how much the tokens of each sentence count; None for all the same.

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            DataError: lengths differ.
        """
        answers = self.predict(X)
        pairs = pair_up(answers, y, "score")
        for at, (found, true) in enumerate(pairs):
            if len(found) != len(true):
                got = f"{len(found)} tokens, {len(true)} tags"
                raise DataError(explain(f"score: sentence {at} has not one tag for each token.", got=got))
        weights = np.ones(len(pairs)) if sample_weight is None else np.asarray(sample_weight, np.float64)
        right = np.array([sum(a == b for a, b in zip(found, true, strict=True)) for found, true in pairs])
        total = weights @ np.array([len(found) for found, _ in pairs])
        return float(weights @ right / total) if total else 0.0

    def predict_records(self, X: Any) -> list[dict[str, Any]]:
        """Tell all that there is to tell of each sentence.

        Args:
            X: as for :meth:`predict`, or what :meth:`read_records` gave.

        Returns:
            For each sentence `tokens`, `tags`, `probabilities` (of each of these tags, given the sentence), `score` (the log
            of the probability of all tags together, in nats), and where tags mark spans `spans`: lists [begin, end, type,
            text], the end not included.

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            DataError: `X` is one text, or holds something else than sentences.
        """
        self._require_fitted("predict")
        return self._answers(bare_sentences("predict", X, self.options))

    def encode(self, records: Any) -> NDArray[np.float32]:
        """Turn each sentence into the mean of what the output layer sees at its tokens.

        Args:
            records: as for :meth:`predict`.

        Returns:
            (N, F), in order; zeros for a sentence without words.

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            DataError: as for :meth:`predict`.
        """
        import torch

        self._require_fitted("encode")
        found = bare_sentences("encode", records, self.options)
        network, _ = self._ready()
        vectors = np.zeros((len(found), network.output.in_features), np.float32)
        with torch.no_grad():
            for index, batch in self._batches(found):
                hidden = network.hidden(batch)
                vectors[index] = (hidden.sum(1) / batch.lengths[:, None]).float().cpu().numpy()
        return vectors

    def plain(self, record: Any, prediction: Mapping[str, Any], *, probabilities: bool = False) -> str:
        """The sentence with its tags, written as it was read.

        A line of words comes back as ``word/tag``, a text of which characters were tagged as its words, between blanks.

        Args:
            record: what :meth:`read_records` gave.
            prediction: what :meth:`predict_records` said of it.
            probabilities: add the probability of each tag, in a last column.

        Raises:
            ConfigError: the format has no place for probabilities.
        """
        tags, chances = prediction["tags"], prediction["probabilities"] if probabilities else None
        if self.options.unit == "char" and not record.columns:
            if chances is not None:
                raise ConfigError(explain("words have no place for the probabilities of tags.", advice="--json shows them"))
            record = to_words(replace(record, tags=None), tags, self.inputs_.tags.data_scheme or "bmes")
            return "\n".join(tagged_lines(replace(record, tags=None, format="raw", separator=" "), format="raw"))
        form = "word/tag" if record.format == "raw" and chances is None else "columns" if record.format == "raw" else None
        return "\n".join(tagged_lines(record, tags, chances, format=form))

    def write_html(
        self, path: str | os.PathLike[str], records: Sequence[TaggedSentence], answers: Sequence[Mapping[str, Any]]
    ) -> None:
        """Write a page of sentences with their spans in colour, and the probability of each tag where the pointer rests.

        Args:
            path: the file; its folder must exist.
            records: what :meth:`Tagger.read_records` gave. Where they have tags, mistakes are marked.
            answers: what :meth:`predict_records` said of them.

        Raises:
            OutputError: the file cannot be written.
        """
        from carousel.tasks.tag.spans_html import ShownSentence, write_spans_html

        characters = self.options.unit == "char"
        shown = [
            ShownSentence(a["tokens"], a["tags"], a["probabilities"], None if characters else record.tags, record.place)
            for record, a in zip(records, answers, strict=True)
        ]
        write_spans_html(path, shown, scheme=self.inputs_.tags.data_scheme, joined=characters)

    def _ready(self) -> tuple[TagNetwork, str]:
        from carousel.training import choose_device

        device = choose_device(self._device)
        return cast("TagNetwork", self.network_).to(device).eval(), device

    def _batches(self, sentences: Sequence[TaggedSentence]) -> Iterator[tuple[NDArray[np.int64], TagBatch]]:
        """The places of some sentences, and the batch of them; sentences without words are in none."""
        from carousel.tasks.tag.batches import TagBatches

        _, device = self._ready()
        real = [at for at, sentence in enumerate(sentences) if sentence.words]
        if not real:
            return
        numbers = self.inputs_.numbers([sentences[at] for at in real], self.options)
        for batch in TagBatches(numbers, None, batch_size=PREDICT_BATCH_SIZE, shuffle=False):
            yield np.array(real)[batch.index.numpy()], batch.to(device)

    def _answers(self, sentences: Sequence[TaggedSentence]) -> list[dict[str, Any]]:
        import torch

        network, _ = self._ready()
        tags = self.inputs_.tags
        empty: dict[str, Any] = {"tokens": [], "tags": [], "probabilities": [], "score": 0.0}
        answers = [dict(empty) for _ in sentences]
        with torch.no_grad():
            for index, batch in self._batches(sentences):
                chain: LinearChain = network(batch)
                path, best = chain.best()
                chances = chain.marginals().gather(-1, path.clamp(min=0)[..., None]).squeeze(-1).tolist()
                scores = (best - chain.log_partition()).tolist()
                rows = zip(index.tolist(), batch.lengths.tolist(), path.tolist(), chances, scores, strict=True)
                for at, length, row, chance, score in rows:
                    names = tags.outside([tags.labels.names[number] for number in row[:length]])
                    answers[at] = {
                        "tokens": list(sentences[at].words),
                        "tags": names,
                        "probabilities": [round(min(1.0, one), 6) for one in chance[:length]],
                        "score": min(0.0, score),
                    }
        if tags.data_scheme is not None:
            blank = "" if self.options.unit == "char" else " "
            for answer in answers:
                found = spans(answer["tags"], tags.data_scheme)
                answer["spans"] = [[a, b, kind, blank.join(answer["tokens"][a:b])] for a, b, kind in found]
        return answers
