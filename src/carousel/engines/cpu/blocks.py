"""Loops and branches in LLVM's language, and the kernel's arguments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from carousel.engines.cpu.vectors import I8, I64, POINTER, Value


class Loop:
    """A loop that is being written: its index, and values that go from turn to turn.

    Attributes:
        index: of this turn.
        carried: the values as the turn finds them; after the loop, as the last turn left them.
        next: what the turn leaves; to be set where there are any.
    """

    def __init__(self, index: Value, carried: list[Value]) -> None:
        self.index = index
        self.carried = carried
        self.next: list[Value] = list(carried)


class Blocks:
    """Writes control flow through an LLVM builder."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder

    @staticmethod
    def number(value: int) -> Value:
        """A whole number of 64 bits."""
        return ir.Constant(I64, value)

    @contextmanager
    def loop(self, start: Value, stop: Value, step: int = 1, carried: Sequence[Value] = ()) -> Iterator[Loop]:
        """From `start` up to (not including) `stop`."""
        b = self.builder
        before, head = b.block, b.append_basic_block("head")
        body, after = b.append_basic_block("body"), b.append_basic_block("after")
        b.branch(head)
        b.position_at_end(head)
        index = b.phi(I64)
        index.add_incoming(start, before)
        phis = []
        for value in carried:
            phi = b.phi(value.type)
            phi.add_incoming(value, before)
            phis.append(phi)
        b.cbranch(b.icmp_signed("<", index, stop), body, after)
        b.position_at_end(body)
        made = Loop(index, phis)
        yield made
        index.add_incoming(b.add(index, self.number(step)), b.block)
        for phi, value in zip(phis, made.next, strict=True):
            phi.add_incoming(value, b.block)
        b.branch(head)
        b.position_at_end(after)

    @contextmanager
    def only_if(self, condition: Value, carried: Sequence[Value] = ()) -> Iterator[Loop]:
        """Once or not at all. `carried` of what is yielded are, afterwards, the values whether it ran or not."""
        b = self.builder
        before, then, after = b.block, b.append_basic_block("then"), b.append_basic_block("after")
        b.cbranch(condition, then, after)
        b.position_at_end(then)
        made = Loop(None, list(carried))
        yield made
        end = b.block
        b.branch(after)
        b.position_at_end(after)
        merged = []
        for old, new in zip(carried, made.next, strict=True):
            phi = b.phi(old.type)
            phi.add_incoming(old, before)
            phi.add_incoming(new, end)
            merged.append(phi)
        made.carried = merged

    def smaller(self, a: Value, b: Value) -> Value:
        """The smaller of two whole numbers."""
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)

    def times(self, a: Value, b: Value | int) -> Value:
        """A product of whole numbers."""
        return self.builder.mul(a, b if isinstance(b, ir.Value) else self.number(b), flags=["nsw"])

    def plus(self, a: Value, b: Value | int) -> Value:
        """A sum of whole numbers."""
        return self.builder.add(a, b if isinstance(b, ir.Value) else self.number(b), flags=["nsw"])

    def minus(self, a: Value, b: Value) -> Value:
        """A difference of whole numbers."""
        return self.builder.sub(a, b, flags=["nsw"])

    def share(self, count: Value, by: Value | int) -> Value:
        """How many parts of size `by` cover `count`."""
        by = by if isinstance(by, ir.Value) else self.number(by)
        return self.builder.sdiv(self.builder.sub(self.builder.add(count, by), self.number(1)), by)

    def at(self, pointer: Value, offset: Value) -> Value:
        """A pointer some bytes further on."""
        return self.builder.gep(pointer, [offset], inbounds=True, source_etype=I8)


class Arguments:
    """The kernel's arguments by name: an array of 64-bit numbers, which are sizes, addresses and distances in bytes."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.index = {name: i for i, name in enumerate(names)}

    def read(self, builder: ir.IRBuilder, pointer: Value) -> dict[str, Value]:
        """Load all of them."""
        values: dict[str, Any] = {}
        for name, i in self.index.items():
            place = builder.gep(pointer, [ir.Constant(I64, i)], inbounds=True, source_etype=I64)
            value = builder.load(place, name=name.replace(" ", "."), typ=I64)
            values[name] = builder.inttoptr(value, POINTER) if name.startswith("*") else value
        return values


class Function:
    """An address as a function: LLVM's addresses have no type, and llvmlite wants to know the type of what it calls."""

    def __init__(self, address: Value, function_type: ir.FunctionType) -> None:
        self.address = address
        self.type = address.type
        self.function_type = function_type

    def get_reference(self) -> str:
        """How the text names it."""
        return str(self.address.get_reference())
