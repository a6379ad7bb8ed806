"""Every cell, every transform: the compiled loops compute what the eager engine does, whoever shares the work.

Batches are packed and ragged, with a sequence that has no step. Both directions in time; forwards everything that is emitted
and the final states, backwards the gradients of inputs, states, parameters and context, each on equal given values.
"""

import pytest
import torch

from backward import packed
from builds import NEWER, TRANSFORMS, idle
from carousel.cells import CELLS, cell_name
from carousel.engines.cpu.programs import why_not
from cases import CASES, small
from compiled import ALONE, TEAMS, Sides, assert_close, assert_same_bits

# Relative to 1 + the largest number. float64, sums in another order: 2e-14 was measured.
CLOSE = 1e-10
# float32 against the eager engine in float64: 3e-7 was measured for the small sizes. For the wide ones 5e-5, in a cell that
# multiplies two products; the eager engine's own float32 is as far away.
SINGLE, SINGLE_WIDE = 1e-6, 2e-4
#: Cells whose loop holds something that has no vector code, and what that is.
UNSUPPORTED = {"conv_lstm": "Conv"}

compiles = [name for name in CELLS if name not in UNSUPPORTED]
builds = list({str(case): case for case in (*CASES, *NEWER) if cell_name(case.cell) not in UNSUPPORTED}.values())
every_build = pytest.mark.parametrize("case", builds, ids=str)
every_compiled = pytest.mark.parametrize("case", list(map(small, compiles)), ids=str)

#: Whole vectors and what is left over, more rows than a tile has, sequences that end.
WIDE = {"widths": (19, 40), "batch_sizes": (13, 13, 9, 4, 1), "batch": 14}


def agree(run, *, reverse, tolerance=CLOSE, dtype=torch.float64):
    """Compare both engines; returns what a later comparison needs."""
    sides = Sides(run.step)
    expected, known = sides.eager_results(run, reverse=reverse)
    got = sides.compiled_results(run, known, reverse=reverse, team=ALONE, dtype=dtype)
    assert any(value.abs().max() > 0 for value in expected.values() if value.numel()), "nothing was compared with nothing"
    assert_close(got, expected, tolerance)
    return sides, known, got


@pytest.mark.parametrize("name", CELLS)
def test_why_a_cell_does_not_compile(name):
    reason = why_not(small(name).cell.graph)
    assert (reason is None) == (name not in UNSUPPORTED)
    assert UNSUPPORTED.get(name, "") in (reason or "")


@every_build
def test_every_cell(case):
    """One direction each, in turn: the wide builds below run in both."""
    agree(packed(case), reverse=builds.index(case) % 2 == 1)


@pytest.mark.parametrize("name", TRANSFORMS)
@every_compiled
def test_every_transform(case, name):
    transform = TRANSFORMS[name]
    if idle(cell_name(case.cell), transform):
        pytest.skip("this transform has nothing to act on in this cell")
    # One direction for each pair: over all cells, each transform meets both.
    reverse = (list(TRANSFORMS).index(name) + compiles.index(cell_name(case.cell))) % 2 == 1
    agree(packed(case, (transform,)), reverse=reverse)


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
@every_compiled
def test_every_cell_wide_and_by_teams_to_the_bit(case, reverse):
    run = packed(case, **WIDE)
    sides, known, alone = agree(run, reverse=reverse)
    # Sums over all rows and steps are torch's products, after the loop; they are given the same numbers here.
    for team in TEAMS.values():
        assert_same_bits(sides.compiled_results(run, known, reverse=reverse, team=team), alone)


@every_compiled
def test_every_cell_in_single_precision(case):
    agree(packed(case), reverse=False, tolerance=SINGLE, dtype=torch.float32)
    agree(packed(case, **WIDE), reverse=False, tolerance=SINGLE_WIDE, dtype=torch.float32)
