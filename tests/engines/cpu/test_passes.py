"""How the values of a stage become passes: what runs together, what waits for a sum, what goes through memory."""

import pytest

from carousel.engines.cpu.passes import Piece, arrange, last_axis, reduces, scalar
from carousel.graph import cumsum, reshape, tanh
from carousel.graph import max as largest
from carousel.graph import sum as sum_of
from carousel.graph.kinds import Constant, Leaf, Noise, Reshape, Role
from carousel.graph.kinds.reductions import Sum
from carousel.graph.node import reachable
from carousel.graph.symbol import Builder


class Arranged:
    """The passes of what a function of leaves (by shape) returns."""

    def __init__(self, function, *shapes, stored=()):
        builder = Builder()
        leaves = [builder.wrap(builder.node(Leaf(Role.STATE, f"s{i}", shape))) for i, shape in enumerate(shapes)]
        named = function(*leaves)
        self.node = {name: symbol.node for name, symbol in named.items()}
        nodes = [n for n in reachable(self.node.values()) if not isinstance(n.kind, Leaf | Constant | Reshape)]
        self.region = arrange(nodes, self.root, {self.node[name]: None for name in stored})
        self.nodes = nodes

    @staticmethod
    def root(node):
        while isinstance(node.kind, Reshape):
            node = node.args[0]
        return node

    def key(self, name):
        return self.region.key[self.node[name]]

    def place(self, name):
        return self.region.order.index(self.key(name))

    def in_memory(self):
        return {name for name, node in self.node.items() if node in self.region.through_memory}


def test_element_wise_values_of_one_shape_are_one_pass():
    def step(a, b):
        c = tanh(a) * b
        return {"c": c, "d": c + a, "e": tanh(c + a) - 1}

    made = Arranged(step, ("H",), ("H",))
    assert len(made.region.order) == 1
    assert made.key("e").piece is Piece.NEST
    assert made.region.through_memory == set()


def test_a_sum_ends_a_pass_and_what_needs_it_comes_after():
    def step(a):
        square = a * a
        total = sum_of(square)
        share = square / total
        return {"square": square, "total": total, "share": share, "of shares": sum_of(share)}

    made = Arranged(step, ("H",))
    assert made.key("square") == made.key("total")
    assert made.place("total") < made.place("share")
    assert made.key("share") == made.key("of shares")
    assert made.in_memory() == {"square"}, "the second pass reads the squares again"


def test_single_numbers_stand_before_the_passes_of_their_level():
    def step(a):
        total = sum_of(a)
        root = total * 2 + 1
        return {"total": total, "root": root, "c": a * root}

    made = Arranged(step, ("H",))
    assert made.key("root").piece is Piece.SCALARS
    assert [made.place(name) for name in ("total", "root", "c")] == [0, 1, 2]
    assert made.key("root").level == made.key("c").level


def test_values_of_two_shapes_are_two_passes():
    made = Arranged(lambda a, b: {"c": tanh(a), "d": tanh(b)}, ("H",), ("E", "H"))
    assert made.key("c") != made.key("d")
    assert made.key("c").level == made.key("d").level == 0


@pytest.mark.parametrize(("axis", "piece", "across"), [("N", Piece.ACROSS, -3), ("E", Piece.ACROSS, -2), ("H", Piece.NEST, 0)])
def test_the_form_of_a_sum_follows_its_axis(axis, piece, across):
    made = Arranged(lambda a: {"total": sum_of(a, axis)}, ("N", "E", "H"))
    assert (made.key("total").piece, made.key("total").across) == (piece, across)
    assert made.key("total").shape == ("N", "E", "H")


def test_what_only_a_sum_across_reads_is_computed_where_it_is_summed():
    def step(a, b):
        term = a * b
        return {"term": term, "total": sum_of(term, "E")}

    made = Arranged(step, ("E", "H"), ("E", "H"))
    assert made.key("term") == made.key("total")
    assert made.in_memory() == set()


@pytest.mark.parametrize("why", ["stored", "read twice"])
def test_what_is_needed_elsewhere_is_not_pulled_into_a_sum_across(why):
    def step(a):
        term = a * a
        return {"term": term, "total": sum_of(term, "E"), **({"more": tanh(term)} if why == "read twice" else {})}

    made = Arranged(step, ("E", "H"), stored=["term"] if why == "stored" else [])
    assert made.key("term").piece is Piece.NEST
    assert made.place("term") < made.place("total")
    assert made.in_memory() == {"term"}


def test_a_running_sum_stands_alone_between_what_it_reads_and_what_reads_it():
    def step(a):
        before = tanh(a)
        running = cumsum(before)
        other = cumsum(a)
        return {"before": before, "running": running, "other": other, "after": running * other}

    made = Arranged(step, ("H",))
    assert made.key("running").piece is made.key("other").piece is Piece.SCAN
    assert made.key("running") != made.key("other")
    assert made.place("before") < made.place("running") < made.place("after")
    assert made.in_memory() == {"before", "running", "other"}


def test_noise_stands_alone():
    def step(a):
        draw = a.builder.apply(Noise(1, ("H",), by_row=False, by_step=False), a)
        return {"noise": draw, "sum": draw + a}

    made = Arranged(step, ("H",))
    assert made.key("noise").piece is Piece.NOISE
    assert made.place("noise") < made.place("sum")
    assert made.in_memory() == {"noise"}


def test_a_view_goes_through_memory():
    def step(a):
        long = tanh(a)
        heads = reshape(long, "N", "E")
        return {"long": long, "read": heads * heads}

    made = Arranged(step, ("H",))
    assert made.place("long") < made.place("read")
    assert made.in_memory() == {"long"}


def test_a_sum_along_an_axis_of_size_one_hands_on_its_argument():
    builder = Builder()
    leaf = builder.node(Leaf(Role.STATE, "s", ("H", 1)))
    summed = builder.node(Sum(1, -1), leaf)
    assert not reduces(summed)
    assert reduces(builder.node(Sum("H", -2), leaf))


@pytest.mark.parametrize(
    ("shape", "place", "single"), [(("H",), -1, False), (("E", 1), -2, False), ((1, 1), -1, True), ((), -1, True)]
)
def test_shapes(shape, place, single):
    assert last_axis(shape) == place
    assert scalar(shape) == single


def test_what_needs_some_values_is_found_through_all_passes():
    def step(a, b):
        first = tanh(a)
        total = sum_of(first)
        return {"first": first, "total": total, "last": b * total, "apart": largest(b)}

    made = Arranged(step, ("H",), ("H",))
    after = made.region.after({made.node["first"].args[0]}, made.root)
    assert after == {made.key("first"), made.key("last")} | {made.key("total")}
    assert made.region.after(set(), made.root) == set()


def test_every_value_comes_after_what_it_needs():
    """In any of these regions a pass reads only what earlier passes, or itself, computed."""

    def step(a, b):
        heads = reshape(tanh(b), "N", "E")
        total = sum_of(a * a)
        scaled = a / total
        mixed = sum_of(heads * sum_of(heads, "E"), "N")
        return {"x": cumsum(scaled) * total, "y": mixed, "z": largest(scaled) + total}

    made = Arranged(step, ("H",), ("H",))
    for node in made.nodes:
        for arg in map(made.root, node.args):
            if arg in made.region.key:
                assert made.region.order.index(made.region.key[arg]) <= made.region.order.index(made.region.key[node])
