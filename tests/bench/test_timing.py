"""Turns, quartiles and ratios."""

from hypothesis import given
from hypothesis import strategies as st

from carousel.bench.timing import Spread, interleaved, ratios, table

times = st.floats(1e-6, 1e3)


def test_every_action_runs_first_in_turn_and_is_prepared():
    calls = []
    actions = {name: lambda name=name: calls.append(name) for name in "abc"}
    taken = interleaved(actions, 1, {"b": 2}, {"c": lambda: calls.append("before c")})
    assert calls == ["a", "b", "b", "b", "before c", "c"]
    assert {name: len(found) for name, found in taken.items()} == {"a": 1, "b": 1, "c": 1}
    calls.clear()
    interleaved(actions, 3)
    assert calls[-9:] == [*"abc", *"bca", *"cab"]


@given(st.lists(st.tuples(times, times), min_size=1, max_size=9), st.floats(0.1, 10))
def test_ratios_are_of_the_same_round(pairs, speed):
    """A clock that slows both sides in some rounds changes nothing."""
    above, below = zip(*pairs, strict=True)
    before = ratios(above, below)
    slow = [speed if at % 2 else 1.0 for at in range(len(pairs))]
    after = ratios([a * s for a, s in zip(above, slow, strict=True)], [b * s for b, s in zip(below, slow, strict=True)])
    for name in ("low", "median", "high"):
        assert abs(getattr(after, name) - getattr(before, name)) <= 1e-9 * getattr(before, name)


def test_spread():
    assert Spread.of([5.0, 1.0, 2.0, 3.0, 4.0]) == Spread(2.0, 3.0, 4.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)
    assert Spread(1.0, 2.0, 3.0).text(1) == "2.0 [1.0, 3.0]"


def test_table_has_columns():
    assert table(["a", "b"], [["x", "1"], ["yy", "22"]]).splitlines() == ["a    b", "--  --", "x    1", "yy  22"]
