"""How a loop is split: by rows or by columns, among how many, in which groups of rows."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

# A team is worth its dispatch above this much work for each member, and its waiting at every step above this much in a step,
# in floating-point operations. Passes over a row are counted as so many for each number of the states.
WORTH_A_THREAD = 2e5
WORTH_A_STEP = 5e4
PASS_OPERATIONS = 60
# By rows, a member should have this many, so that a tile is filled ...
ROWS_EACH = 8
# ... and the weights should fit this part of a second-level cache, or every member streams all of them at each step.
CACHE_SHARE = 0.75


@functools.cache
def second_level_cache() -> int:
    """Bytes of a core's second-level cache; a guess where the system does not tell."""
    try:  # the C library guesses from tables and is wrong on new CPUs
        text = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text().strip()
        return int(text.removesuffix("K")) << 10
    except (OSError, ValueError):
        return 1 << 20


@dataclass(frozen=True)
class Team:
    """How a loop is split.

    Attributes:
        members: how many share it.
        columns: whether they share columns instead of rows. One member alone takes all columns of all rows at once: where
            the weights do not fit a near cache, they are read once for a step.
    """

    members: int
    columns: bool


@dataclass(frozen=True)
class Work:
    """What a step costs.

    Attributes:
        weights: bytes of all matrices.
        operations: floating-point operations for each row.
        widest: the columns of the widest product.
        rows: of the fullest step.
        total_rows: of all steps.
        lanes: of a vector.
    """

    weights: int
    operations: int
    widest: int
    rows: int
    total_rows: int
    lanes: int


def choose_team(work: Work, threads: int) -> Team:
    """Choose how a loop is split among at most so many threads."""
    members = max(1, min(threads, int(work.operations * work.total_rows // WORTH_A_THREAD)))
    fits = work.weights <= CACHE_SHARE * second_level_cache()
    if not work.weights or (fits and (members == 1 or work.rows >= ROWS_EACH * members)):
        return Team(min(members, max(work.rows, 1)), columns=False)
    # A step must be long beside the two or three waits that columns cost it.
    step = work.operations * work.rows / members
    if members == 1 or (step >= WORTH_A_STEP and work.widest >= 4 * work.lanes * members):
        return Team(members, columns=True)
    return Team(max(1, min(members, work.rows // 2)), columns=False)


def groups_of_rows(rows: int, team: Team, most: int) -> tuple[int, int]:
    """How many groups of rows, and the rows in each; `most` rows fill the largest tile of a product."""
    if team.columns or rows == 0:
        return 1, max(rows, 1)
    groups = team.members * -(-rows // (most * team.members))
    size = -(-rows // groups)
    return -(-rows // size), size
