"""The loop program as text: for reading, with names; without them, as what tells loops apart in the cache.

Golden texts are written anew with `pytest tests/engines/cpu/test_printing.py --update-golden`.
"""

import dataclasses
from pathlib import Path

import pytest

from carousel.cells import CELLS, resolve_cell
from carousel.engines.cpu import kernel
from carousel.engines.cpu.emit import STAGES, emit, loop_program
from carousel.engines.cpu.layout import build_loop
from carousel.engines.cpu.loop import Buffer, Loop, Pass, Phase, Product, Where
from carousel.engines.cpu.passes import Piece
from carousel.engines.cpu.printing import loop_text
from carousel.engines.cpu.programs import programs
from carousel.engines.cpu.target import target
from carousel.engines.cpu.vectors import FLOAT32
from carousel.errors import ConfigError, KernelUnavailable
from carousel.graph import Cell, sigmoid, tanh
from carousel.graph import sum as sum_of
from carousel.graph.kinds import Block, Dense, Elementwise
from cases import small
from loops import loop_of, looped, of_function

GOLDEN = Path(__file__).parents[2] / "golden" / "loop"
VIEWS = {
    f"{name}.{way}{'.fused' * fuse}": (name, way == "backward", fuse)
    for name in ("elman", "lstm", "gru")
    for way in ("forward", "backward")
    for fuse in (False, True)
}
COMPILED = [name for name in CELLS if name != "conv_lstm"]


# --- for reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
def test_golden(view, request):
    name, backward, fuse = VIEWS[view]
    text = emit(resolve_cell(name).graph, "loop", backward=backward, fuse=fuse) + "\n"
    path = GOLDEN / f"{view}.txt"
    if request.config.getoption("--update-golden"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_no_golden_text_is_left_over():
    assert {path.name for path in GOLDEN.glob("*")} == {f"{view}.txt" for view in VIEWS}


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("name", COMPILED)
def test_every_value_that_is_read_is_explained_before(name, backward):
    """No label is read before the line that says what it is, and no object's address is printed."""
    text = emit(small(name).cell.graph, "loop", backward=backward)
    assert "<" not in text.replace("<-", "")
    memory, work = text.split("memory:\n")[1].split("phase 0", 1)
    known = {word.strip(",") for word in memory.split() if word.startswith("%")}
    for line in work.splitlines():
        left, equals, right = line.partition(" = ")
        read = {word.strip("(),-") for word in (right if equals else left).split() if word.strip("(),-").startswith("%")}
        assert read <= known, line
        known |= {word.strip(",") for word in left.split() if word.startswith("%")}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_of_another_cpu_and_type(stage):
    step = resolve_cell("gru").graph
    here = emit(step, stage, cpu="haswell")
    assert here == emit(step, stage, cpu="haswell"), "building twice gives the same text"
    assert (here == emit(step, stage, cpu="icelake-server")) == (stage == "loop")
    assert (here == emit(step, stage, cpu="haswell", dtype="float64")) == (stage == "loop")
    assert here != emit(step, stage, cpu="haswell", backward=True)
    assert here != emit(step, stage, cpu="haswell", fuse=True)


def test_what_cannot_be_emitted_says_why():
    step = resolve_cell("gru").graph
    for wrong in ({"stage": "loops"}, {"stage": "asm", "dtype": "float16"}, {"stage": "asm", "cpu": "haswel"}):
        with pytest.raises(ConfigError, match=r"unknown|Did you mean"):
            emit(step, **wrong)
    with pytest.raises(KernelUnavailable, match="Convolution"):
        loop_program(resolve_cell("conv_lstm").graph)


# --- for telling apart --------------------------------------------------------------------------------------------------


def test_equal_equations_have_one_text_whatever_they_are_called():
    class One(Cell):
        def step(self, x, h):
            gate = sigmoid(self.affine("gate", x, h))
            return gate * h + (1 - gate) * tanh(self.dense("W", x))

    class Other(Cell):
        state = ("memory",)

        def step(self, x, memory):
            keep = sigmoid(self.affine("keep", x, memory))
            return keep * memory + (1 - keep) * tanh(self.dense("V", x))

    for way in ({}, {"backward": True}, {"fuse": True}):
        loops = [loop_program(cell().graph, **way) for cell in (One, One, Other)]
        assert len({loop_text(loop) for loop in loops}) == 1
        assert len({loop_text(loop, named=True) for loop in loops}) == 2


def test_one_text_means_one_code():
    """Over cells, directions and variants: wherever two loops have one text, one kernel is written for both."""
    cpu, found, count = target("haswell"), {}, 0
    for name in ("elman", "irnn", "lstm", "coupled_lstm", "gru", "lstmp", "clockwork_rnn", "mlstm"):
        made = programs(small(name).cell.graph)
        for executor in (made.alone, made.saving):
            for trajectory in (False, True):
                for fuse in (False, True):
                    loop = build_loop(executor.schedule, trajectory=trajectory, fuse=fuse)
                    code = str(kernel.build(loop, cpu, FLOAT32))
                    assert found.setdefault(loop_text(loop), code) == code
                    count += 1
    assert count > len(found) > count // 2


def rich():
    """A loop with most of what a loop can have: two states, two phases, sums, scratch, single numbers, a kept place."""

    def step(h, c, x, U, V, w, R):
        total = sum_of(h * h) + 1.0
        i = sigmoid(x.builder.apply(Elementwise("add"), w * x, h) / total)
        f = tanh(h.builder.apply(Dense(), U, h) - h * 0.5)
        g = h.builder.apply(Dense(), V, i * f)
        return {"h": f + g, "c": c.builder.apply(Block(), R, c)}, {"i": i, "f": f, "t": total}

    states, matrices = {"h": ("H",), "c": ("N", "E")}, {"U": ("H", "H"), "V": ("H", "H"), "w": ("H",), "R": ("N", "E", "E")}
    return loop_of(looped(step, states=states, inputs={"x": ("H",)}, parameters=matrices))


def first(loop, kind):
    """An object of that class in the loop; the one with most inside."""
    passes = [p for phase in loop.phases for p in (*phase.prelude, *phase.passes)]
    many = {
        Loop: [loop],
        Buffer: [b for b in loop.buffers if b.product is not None],
        Product: sorted(loop.products, key=lambda p: len(p.outputs)),
        Pass: sorted(passes, key=lambda p: (len(p.stores), len(p.nodes))),
        Phase: sorted(loop.phases, key=lambda p: len(p.passes)),
    }
    return many[kind][-1]


def swapped(items):
    return (*items[1:], items[0])


#: By class and field, another value of it: made from the loop and the old value.
CHANGES = {
    (Loop, "phases"): lambda loop, old: old[:-1],
    (Loop, "buffers"): lambda loop, old: swapped(old),
    (Loop, "memory"): lambda loop, old: dict(zip(old, swapped(tuple(old.values())), strict=True)),
    (Loop, "axes"): lambda loop, old: (*old, "Z"),
    (Loop, "instead"): lambda loop, old: {loop.buffers[0]: loop.buffers[1]},
    (Loop, "trajectory"): lambda loop, old: old ^ {"h"},
    (Loop, "fuse"): lambda loop, old: not old,
    (Buffer, "where"): lambda loop, old: Where.LOCAL,
    (Buffer, "shape"): lambda loop, old: (*old, 2),
    (Buffer, "whole"): lambda loop, old: not old,
    (Buffer, "state"): lambda loop, old: "c",
    (Buffer, "product"): lambda loop, old: old + 1,
    (Buffer, "gate"): lambda loop, old: old + 1,
    (Buffer, "given"): lambda loop, old: not old,
    (Product, "number"): lambda loop, old: old + 1,
    (Product, "outputs"): lambda loop, old: (*old, loop.products[0].outputs[0]),
    (Product, "matrices"): lambda loop, old: tuple((*gates, gates[0]) for gates in old),
    (Product, "operands"): lambda loop, old: tuple(first(loop, Pass).nodes[-1] for _ in old),
    (Product, "transposed"): lambda loop, old: not old,
    (Product, "blocks"): lambda loop, old: not old,
    (Pass, "piece"): lambda loop, old: Piece.SCAN,
    (Pass, "shape"): lambda loop, old: (*old, 2),
    (Pass, "nodes"): lambda loop, old: old[:-1],
    (Pass, "stores"): lambda loop, old: swapped(old),
    (Pass, "across"): lambda loop, old: old - 2,
    (Phase, "products"): lambda loop, old: (),
    (Phase, "prelude"): lambda loop, old: loop.phases[0].passes,
    (Phase, "passes"): lambda loop, old: swapped(old),
    (Phase, "tiles"): lambda loop, old: {loop.products[0].outputs[0]: (loop.products[0], 1)},
}
#: What decides nothing about the code, with what does instead.
WITHOUT = {
    (Loop, "kept"): "a buffer's own place; this is for who runs the loop",
    (Loop, "states"): "their buffers and the order of states, which `rich` cannot lose",
    (Loop, "aliases"): "the value that is read, as a view",
    (Buffer, "node"): "`memory` of the loop",
}


def test_every_field_is_looked_at():
    fields = {(kind, f.name) for kind in (Loop, Buffer, Product, Pass, Phase) for f in dataclasses.fields(kind)}
    assert fields == set(CHANGES) | set(WITHOUT)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change[0].__name__}.{change[1]}")
def test_another_value_of_a_field_is_another_text(change):
    kind, name = change
    loop = rich()
    before = loop_text(loop)
    assert before == loop_text(rich())
    what = first(loop, kind)
    old = getattr(what, name)
    new = CHANGES[change](loop, old)
    assert new != old, "nothing was changed"
    object.__setattr__(what, name, new)
    assert loop_text(loop) != before


def test_what_a_node_computes_is_in_the_text():
    texts = {
        loop_text(loop_of(of_function(function)))
        for function in (
            lambda h: h - 2.0, lambda h: 2.0 - h, lambda h: h - 2.0000001, lambda h: h**-3, lambda h: h**-3.0000001,
            tanh, sigmoid, lambda h: h * h, lambda h: h + h, lambda h: h + h + h, lambda h: sum_of(h) * h,
        )
    }  # fmt: skip
    assert len(texts) == 11
