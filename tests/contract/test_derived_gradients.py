"""The derived backward step equals autograd for every cell, every transform on every cell, and transforms in pairs."""

import itertools

import pytest

from backward import assert_derived_equals_autograd
from builds import NEWER, TRANSFORMS, every_transform, small
from cases import every_case, every_cell


@every_case
def test_every_cell(case):
    assert_derived_equals_autograd(case)


@pytest.mark.parametrize("case", NEWER, ids=str)
def test_every_option(case):
    assert_derived_equals_autograd(case)


@every_cell
@every_transform
def test_every_transform_on_every_cell(case, transform):
    assert_derived_equals_autograd(case, (transform,))


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(TRANSFORMS, 2)))
def test_transforms_in_pairs(first, second):
    assert_derived_equals_autograd(small("lstm"), (TRANSFORMS[first], TRANSFORMS[second]))


PAIRED = ("gru", "slstm", "conv_lstm", "attention_gru", "gru_d")


@pytest.mark.parametrize(("first", "second"), list(itertools.pairwise([*TRANSFORMS, next(iter(TRANSFORMS))])))
@pytest.mark.parametrize("name", PAIRED)
def test_transforms_in_pairs_on_cells_with_other_kinds_of_value(name, first, second):
    assert_derived_equals_autograd(small(name), (TRANSFORMS[first], TRANSFORMS[second]))


@every_cell
@pytest.mark.parametrize("name", ["zoneout", "layer norm"])
def test_evaluation(case, name):
    """The other transforms leave the cell as it is, or do the same in training."""
    assert_derived_equals_autograd(case, (TRANSFORMS[name],), training=False)
