"""Tells the training library which process of a run this is, so that it starts none itself."""

from __future__ import annotations

from lightning.fabric.plugins.environments.lightning import LightningEnvironment

__all__ = ["OneMachine"]


class OneMachine(LightningEnvironment):
    """The processes of a run on one machine; :mod:`carousel.training.processes` has started and connected them.

    Args:
        rank: this process, counted from 0.
    """

    def __init__(self, rank: int) -> None:
        super().__init__()
        self._rank = rank

    @property
    def creates_processes_externally(self) -> bool:
        """The library shall start no processes."""
        return True

    def local_rank(self) -> int:
        """This process."""
        return self._rank

    def node_rank(self) -> int:
        """This machine, the only one."""
        return 0
