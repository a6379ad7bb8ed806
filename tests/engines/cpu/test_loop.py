"""The loop program: phases, which of them run block by block, where values lie, what is kept in another's place."""

import pytest

from carousel.cells import CELLS
from carousel.engines.cpu.emit import loop_program
from carousel.engines.cpu.loop import Where
from carousel.engines.cpu.passes import Piece
from carousel.graph import cumsum, reshape, sigmoid, tanh
from carousel.graph import sum as sum_of
from carousel.graph.kinds import Block, Constant, Dense, Noise, Role
from cases import small
from loops import loop_of, looped

COMPILED = [name for name in CELLS if name != "conv_lstm"]
SQUARE = {"U": ("H", "H"), "V": ("H", "H")}


def times(matrix, vector, kind=Dense):
    return vector.builder.apply(kind(), matrix, vector)


def passes_of(loop):
    return [p for phase in loop.phases for p in (*phase.prelude, *phase.passes)]


def where(loop, node):
    return loop.memory[loop.root(node)].where


def node_of(program, name):
    return {**program.emitted, **{n: c.after for n, c in program.carried.items()}}[name]


# --- every cell ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fuse", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("name", COMPILED)
def test_every_value_is_there_when_it_is_read(name, backward, fuse):
    """Reading the program line by line: a value comes from what is given, from memory written before, or from its own pass."""
    loop = loop_program(small(name).cell.graph, backward=backward, fuse=fuse)
    assert set(loop.memory.values()) <= set(loop.buffers)
    written = {b for b in loop.buffers if b.given or b.where is Where.BEFORE}
    for phase in loop.phases:
        tiles = set(phase.tiles)
        assert phase.fused == bool(tiles)
        assert not phase.fused or fuse

        def run(pass_, numbers, tiles=frozenset()):
            here = set(pass_.nodes) | tiles
            reads = [arg for node in pass_.nodes for arg in node.args] + [node for node, _ in pass_.stores]
            for arg in reads:
                if loop.root(arg) in here or isinstance(arg.kind, Constant) or loop.root(arg) in numbers:
                    continue
                assert loop.memory[loop.root(arg)] in written, arg
            if pass_.piece is Piece.SCALARS:
                numbers.update(pass_.nodes)
            numbers.update(node for node in pass_.nodes if all(axis == 1 for axis in node.shape))
            written.update(buffer for _, buffer in pass_.stores)

        numbers = set()
        for pass_ in phase.prelude:
            run(pass_, numbers)
        for product in phase.products:
            assert all(loop.memory[loop.root(operand)] in written for operand in product.operands)
            if not phase.fused:
                written.update(loop.memory[output] for output in product.outputs)
        for pass_ in phase.passes:
            run(pass_, numbers, tiles)
    assert {b for b in loop.buffers if b.where is Where.AFTER} <= written, "every state is handed on"
    assert set(loop.kept.values()) <= written


@pytest.mark.parametrize("name", COMPILED)
def test_scratch_and_local_memory_is_needed(name):
    """What lies between phases is read by a later phase or a product; what lies between passes, by a later pass."""
    loop = loop_program(small(name).cell.graph)
    for buffer in loop.buffers:
        if buffer.where in (Where.SCRATCH, Where.LOCAL):
            reads = [arg for p in passes_of(loop) for node in p.nodes for arg in node.args]
            reads += [node for p in passes_of(loop) for node, _ in p.stores]
            reads += [operand for product in loop.products for operand in product.operands]
            assert any(loop.memory.get(loop.root(arg)) is buffer for arg in reads)


# --- phases -------------------------------------------------------------------------------------------------------------


def test_products_that_wait_for_each_other_are_phases():
    def step(h, U, V):
        return {"h": tanh(times(V, sigmoid(times(U, h))))}, {}

    loop = loop_of(looped(step, parameters=SQUARE))
    assert [len(phase.products) for phase in loop.phases] == [1, 1]
    assert [len(phase.passes) for phase in loop.phases] == [1, 1]


def test_products_that_share_an_operand_are_gates_of_one():
    loop = loop_of(looped(lambda h, U, V: ({"h": times(U, h) * times(V, h)}, {}), parameters=SQUARE))
    (product,) = loop.products
    assert len(product.outputs) == 2
    assert len(product.operands) == 1


def test_a_sum_of_products_is_one_product_of_pairs():
    program = looped(
        lambda h, c, U, V: ({"h": times(U, h) + times(V, c), "c": h}, {}), states={"h": ("H",), "c": ("H",)}, parameters=SQUARE
    )
    (product,) = loop_of(program).products
    assert (len(product.outputs), len(product.operands)) == (1, 2)


#: By name: a step, and which of its phases run block by block where that is asked for.
FUSED = {
    "a product and its pass": (lambda h, U, w: tanh(times(U, h) + w * h), [True]),
    "numbers of the row first": (lambda h, U, w: times(U, h) * (sum_of(w) + 1.0), [True]),
    "a sum of the state first": (lambda h, U, w: times(U, h) * sum_of(h), [False]),
    "a value for all rows first": (lambda h, U, w: times(U, h) * tanh(cumsum(h)), [True]),
    "a sum of the result": (lambda h, U, w: times(U, h) - sum_of(times(U, h)), [False]),
    "a running sum of the result": (lambda h, U, w: cumsum(times(U, h)), [False]),
    "nothing after the product": (lambda h, U, w: times(U, h), [True]),
    "two in turn": (lambda h, U, w: tanh(times(U, sigmoid(times(U, h)))), [True, True]),
    "no product": (lambda h, U, w: tanh(h * w), [False]),
}  # fmt: skip


@pytest.mark.parametrize("name", FUSED)
def test_which_phases_run_block_by_block(name):
    step, wanted = FUSED[name]
    program = looped(lambda h, U, w: ({"h": step(h, U, w)}, {}), parameters={"U": ("H", "H"), "w": ("H",)})
    assert [phase.fused for phase in loop_of(program, fuse=True).phases] == wanted
    assert not any(phase.fused for phase in loop_of(program, fuse=False).phases)


def test_a_sum_of_the_result_that_nothing_waits_for_runs_by_whole_rows():
    """It would need every block."""
    program = looped(lambda h, U, V: ({"h": times(U, h)}, {"y": sum_of(tanh(times(U, h)))}), parameters=SQUARE)
    assert [phase.fused for phase in loop_of(program, fuse=True).phases] == [False]


def test_products_of_heads_run_by_whole_rows():
    program = looped(
        lambda h, R: ({"h": tanh(times(R, h, Block))}, {}), states={"h": ("N", "E")}, parameters={"R": ("N", "E", "E")}
    )
    loop = loop_of(program, fuse=True)
    assert [phase.fused for phase in loop.phases] == [False]
    assert loop.products[0].blocks


def test_products_of_two_widths_run_by_whole_rows():
    def step(h, c, U, W):
        return {"h": tanh(times(U, h)), "c": tanh(times(W, h)) + c}, {}

    program = looped(step, states={"h": ("H",), "c": ("E",)}, parameters={"U": ("H", "H"), "W": ("E", "H")})
    loop = loop_of(program, fuse=True)
    assert [phase.fused for phase in loop.phases] == [False]
    assert len(loop.products) == 2


# --- memory -------------------------------------------------------------------------------------------------------------


def test_where_what_is_given_lies():
    def step(h, x, c, w, seed, row, time):
        noise = h.builder.apply(Noise(1, ("H",), by_row=True, by_step=True), seed, row, time)
        return {"h": (tanh(h * x) + h * c) * w + noise}, {}

    program = looped(
        step, inputs={"x": ("H",)}, context={"c": ("H",)}, parameters={"w": ("H",)}, ambient=(Role.SEED, Role.ROW, Role.TIME)
    )
    loop = loop_of(program)
    named = {b.node.kind.name: b for b in loop.buffers if b.given}  # the leaves
    wanted = {"x": Where.STEP, "c": Where.ROW, "w": Where.ONCE, "seed": Where.ONCE, "row": Where.ROW, "time": Where.STEP}
    assert {name: b.where for name, b in named.items()} == wanted
    assert {name for name, b in named.items() if b.whole} == {"seed", "row", "time"}


def test_where_what_is_computed_lies():
    def step(h, U, V):
        gate = sigmoid(times(U, h))  # read by the next phase
        share = gate * h  # the operand of a product
        alone = gate * 2.0  # read in its own pass only
        total = sum_of(alone)  # a number that only its own phase reads
        return {"h": times(V, share) * gate + h}, {"kept": alone * total}

    program = looped(step, parameters=SQUARE)
    loop = loop_of(program)
    kinds = {b.where: 0 for b in loop.buffers}
    for buffer in loop.buffers:
        kinds[buffer.where] += 1
    # Two results of products, the gate and the share in scratch; `alone` waits for its sum in local memory; one value is kept.
    assert kinds == {Where.BEFORE: 1, Where.AFTER: 1, Where.STEP: 1, Where.SCRATCH: 4, Where.LOCAL: 1}
    assert [b.product for b in loop.buffers if b.where is Where.SCRATCH] == [None, None, 0, 1]


def test_results_of_a_fused_phase_have_no_memory():
    program = looped(lambda h, U, V: ({"h": tanh(times(U, h) * times(V, h))}, {}), parameters=SQUARE)
    plain, fused = loop_of(program), loop_of(program, fuse=True)
    assert sum(b.where is Where.SCRATCH for b in plain.buffers) == 2
    assert sum(b.where is Where.SCRATCH for b in fused.buffers) == 0
    assert {gate for _, gate in fused.phases[0].tiles.values()} == {0, 1}


def test_a_value_that_is_kept_and_handed_on_is_stored_in_both_places():
    program = looped(lambda h, x: ({"h": tanh(h + x)}, {"y": tanh(h + x)}), inputs={"x": ("H",)})
    (pass_,) = passes_of(loop_of(program))
    assert sorted(buffer.where.value for _, buffer in pass_.stores) == ["after", "step"]
    (pass_,) = passes_of(loop_of(program, trajectory=True))
    assert [buffer.where for _, buffer in pass_.stores] == [Where.AFTER], "along all steps, one place does for both"


# --- along all steps, and in another's place ------------------------------------------------------------------------------


def test_states_that_are_kept_lie_along_all_steps():
    def step(h, c):
        return {"h": tanh(h + c), "c": c * 0.5}, {"y": tanh(h + c)}

    program = looped(step, states={"h": ("H",), "c": ("H",)})
    loop = loop_of(program, trajectory=True)
    assert loop.trajectory == {"h"}, "nobody needs all steps of the other"
    assert loop.kept == {node_of(program, "y"): loop.states["h"][1]}
    assert loop_of(program).trajectory == frozenset()


def test_a_state_that_takes_anothers_value_has_its_own_two_places():
    def step(h, last):
        new = tanh(h * last)
        return {"h": new, "last": h}, {"new": new, "old": h}

    loop = loop_of(looped(step, states={"h": ("H",), "last": ("H",)}), trajectory=True)
    assert loop.trajectory == {"h"}


def test_gates_are_kept_where_their_inputs_were():
    loop = loop_program(small("lstm").cell.graph)
    pairs = loop.instead
    assert {new.node.name for new in pairs} == {"i", "f", "g", "o"}
    assert len(set(pairs.values())) == 4
    readers = [p for p in passes_of(loop) for node in p.nodes for arg in node.args if arg in {b.node for b in pairs.values()}]
    assert len(readers) == 4, "each is read once"


#: By name: a step that emits y, and whether y may take the place of W x.
INSTEAD = {
    "read for the last time": (lambda h, p: (h * p, tanh(h + p)), True),
    "read again in a later pass": (lambda h, p: (p * sum_of(h * p), tanh(h + p)), False),
    "of another shape": (lambda h, p: (h * p, sum_of(h + p)), False),
    "seen with other axes": (lambda h, p: (h * reshape(tanh(reshape(p, "N", "E")), "H"), tanh(h + p)), False),
}


@pytest.mark.parametrize("name", INSTEAD)
def test_when_a_kept_value_takes_anothers_place(name):
    function, wanted = INSTEAD[name]

    def step(h, x, W):
        new, y = function(h, times(W, x))
        return {"h": new}, {"y": y}

    loop = loop_of(looped(step, inputs={"x": ("H",)}, parameters={"W": ("H", "H")}))
    assert bool(loop.instead) == wanted


def test_what_is_emitted_or_an_operand_keeps_its_place():
    def emitted(h, x, W):
        return {"h": h * times(W, x)}, {"y": tanh(h + times(W, x)), "p": times(W, x)}

    def operand(h, x, W, U):
        return {"h": times(U, h * 1.0) + times(U, times(W, x) + 0.0 * h)}, {"y": tanh(h + times(W, x))}

    square = ("H", "H")
    assert not loop_of(looped(emitted, inputs={"x": ("H",)}, parameters={"W": square})).instead
    loop = loop_of(looped(operand, inputs={"x": ("H",)}, parameters={"W": square, "U": square}))
    operands = {loop.root(o) for product in loop.products for o in product.operands}
    assert not {old.node for old in loop.instead.values()} & operands


def test_what_was_handed_in_keeps_its_place():
    """An input is the caller's: nothing is written there."""
    loop = loop_of(looped(lambda h, x: ({"h": h * x}, {"y": tanh(h + x)}), inputs={"x": ("H",)}))
    assert not loop.instead
