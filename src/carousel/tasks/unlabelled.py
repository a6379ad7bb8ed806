"""Tasks whose items have no label to be judged by."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

from carousel.errors import ConfigError, explain
from carousel.tasks.base import Estimator, PathLike

if TYPE_CHECKING:
    from carousel.tasks.evaluation import Evaluation, Kind

__all__ = ["Unlabelled"]

Inputs = TypeVar("Inputs")


class Unlabelled(Estimator[Inputs]):
    """An estimator that measures by other means than one answer for each item.

    A subclass says in `no_labels` why there is nothing to be judged by.
    """

    no_labels: ClassVar[str]

    def evaluate_file(self, path: PathLike, directory: Path) -> dict[str, float]:  # noqa: ARG002 - nothing is drawn
        """Measure on a file; see :meth:`evaluate`.

        Args:
            path: the file; ``-`` is standard input.
            directory: the run directory; nothing is written.
        """
        return self.evaluate(path)

    def judge(self, data: Any) -> Evaluation:  # noqa: ARG002 - the base's signature
        """Items with one answer are judged so; here :meth:`evaluate` measures.

        Args:
            data: anything.

        Raises:
            ConfigError: always.
        """
        self._refuse()

    def labelled_records(self, data: Any) -> tuple[list[Any], Kind]:  # noqa: ARG002 - the base's signature
        """There are no labels; see :meth:`judge`."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ConfigError(explain(self.no_labels, advice="carousel evaluate DIR --data FILE"))
