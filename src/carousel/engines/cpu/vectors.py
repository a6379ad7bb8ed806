"""Vector instructions: what one lane-wise operation on floats is in LLVM's language, for a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from carousel.engines.cpu.target import Target

I1, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)
POINTER = ir.PointerType()
Value = Any  # an LLVM value


@dataclass(frozen=True)
class Real:
    """A floating-point type.

    Attributes:
        name: as torch calls it.
        bits: its width.
        mantissa: bits after the point.
        bias: of the exponent.
    """

    name: str
    bits: int
    mantissa: int
    bias: int

    @property
    def type(self) -> ir.Type:
        """LLVM's type."""
        return ir.FloatType() if self.bits == 32 else ir.DoubleType()

    @property
    def whole(self) -> ir.IntType:
        """The integers of the same width."""
        return ir.IntType(self.bits)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.bits // 8


FLOAT32 = Real("float32", 32, 23, 127)
FLOAT64 = Real("float64", 64, 52, 1023)
REALS = {"float32": FLOAT32, "float64": FLOAT64}


class Vectors:
    """Writes lane-wise operations through an LLVM builder.

    Args:
        builder: where the instructions go.
        target: the CPU.
        real: what the lanes hold.
    """

    def __init__(self, builder: ir.IRBuilder, target: Target, real: Real) -> None:
        self.builder = builder
        self.target = target
        self.real = real
        self.lanes = target.bits // real.bits
        self.type = ir.VectorType(real.type, self.lanes)
        self.whole = ir.VectorType(real.whole, self.lanes)
        self.mask = ir.VectorType(I1, self.lanes)

    # --- numbers ------------------------------------------------------------------------------------------------------

    def const(self, number: float) -> Value:
        """The number in every lane."""
        return ir.Constant(self.type, [ir.Constant(self.real.type, number)] * self.lanes)

    def iconst(self, number: int) -> Value:
        """The whole number in every lane, as wide as a float is."""
        return ir.Constant(self.whole, [ir.Constant(self.real.whole, number)] * self.lanes)

    def splat(self, scalar: Value) -> Value:
        """A scalar in every lane."""
        vector = ir.VectorType(scalar.type, self.lanes)
        one = self.builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(I32, 0))
        order = ir.Constant(ir.VectorType(I32, self.lanes), [ir.Constant(I32, 0)] * self.lanes)
        return self.builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), order)

    def iota(self) -> Value:
        """0, 1, 2, ... by lane, whole numbers as wide as a float."""
        return ir.Constant(self.whole, [ir.Constant(self.real.whole, i) for i in range(self.lanes)])

    def first_lanes(self, count: Value) -> Value:
        """A mask: the first so many lanes, a whole number of 64 bits; none for a number below 1."""
        if self.real.bits < 64:
            count = self.builder.trunc(count, self.real.whole)
        return self.builder.icmp_signed("<", self.iota(), self.splat(count))

    # --- arithmetic ---------------------------------------------------------------------------------------------------

    def add(self, a: Value, b: Value) -> Value:
        """``a + b``."""
        return self.builder.fadd(a, b)

    def sub(self, a: Value, b: Value) -> Value:
        """``a - b``."""
        return self.builder.fsub(a, b)

    def mul(self, a: Value, b: Value) -> Value:
        """``a * b``."""
        return self.builder.fmul(a, b)

    def div(self, a: Value, b: Value) -> Value:
        """``a / b``, correctly rounded."""
        return self.builder.fdiv(a, b)

    def neg(self, a: Value) -> Value:
        """``-a``."""
        return self.builder.fneg(a)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """``a * b + c``, with one rounding where the CPU can; without the instruction LLVM would call a library."""
        if self.target.fma:
            return self.intrinsic("fma", a, b, c)
        return self.add(self.mul(a, b), c)

    def sqrt(self, a: Value) -> Value:
        """The square root, correctly rounded."""
        return self.intrinsic("sqrt", a)

    def abs(self, a: Value) -> Value:
        """Without the sign."""
        return self.intrinsic("fabs", a)

    def round(self, a: Value) -> Value:
        """To the nearest whole number, ties to even."""
        return self.intrinsic("rint", a)

    def floor(self, a: Value) -> Value:
        """The largest whole number not above."""
        return self.intrinsic("floor", a)

    def copysign(self, a: Value, sign: Value) -> Value:
        """The size of `a` with the sign of `sign`."""
        return self.intrinsic("copysign", a, sign)

    def at_least(self, a: Value, bound: Value) -> Value:
        """The larger; `a` where it is not a number. One instruction on x86."""
        return self.select(self.builder.fcmp_ordered(">", bound, a), bound, a)

    def at_most(self, a: Value, bound: Value) -> Value:
        """The smaller; `a` where it is not a number."""
        return self.select(self.builder.fcmp_ordered("<", bound, a), bound, a)

    # --- choice and bits ----------------------------------------------------------------------------------------------

    def compare(self, sign: str, a: Value, b: Value) -> Value:
        """A mask: ``<``, ``<=``, ``==``, ``>``, ``>=`` are false on not-a-number, ``!=`` is true."""
        return (self.builder.fcmp_unordered if sign == "!=" else self.builder.fcmp_ordered)(sign, a, b)

    def select(self, mask: Value, yes: Value, no: Value) -> Value:
        """By lane, one or the other."""
        return self.builder.select(mask, yes, no)

    def is_nan(self, a: Value) -> Value:
        """A mask: not a number."""
        return self.builder.fcmp_unordered("uno", a, a)

    def bits(self, a: Value) -> Value:
        """The same bits as whole numbers."""
        return self.builder.bitcast(a, self.whole)

    def from_bits(self, a: Value) -> Value:
        """The same bits as floats."""
        return self.builder.bitcast(a, self.type)

    def to_whole(self, a: Value) -> Value:
        """Floats that hold whole numbers, as whole numbers."""
        return self.builder.fptosi(a, self.whole)

    def to_real(self, a: Value) -> Value:
        """Whole numbers as floats."""
        return self.builder.sitofp(a, self.type)

    # --- other widths -------------------------------------------------------------------------------------------------

    @property
    def fills_512(self) -> bool:
        """Whether a vector is one register of AVX-512, for which instructions may be asked for by name."""
        return self.target.avx512 and self.lanes * self.real.bits == 512

    def doubles(self) -> Vectors:
        """As many lanes, of doubles: LLVM splits such a vector where the registers are too short."""
        wide = Vectors(self.builder, self.target, FLOAT64)
        wide.lanes = self.lanes
        wide.type, wide.whole = ir.VectorType(FLOAT64.type, self.lanes), ir.VectorType(FLOAT64.whole, self.lanes)
        wide.mask = self.mask
        return wide

    def widen(self, a: Value) -> Value:
        """Floats as doubles, exactly."""
        return a if self.real is FLOAT64 else self.builder.fpext(a, ir.VectorType(FLOAT64.type, self.lanes))

    def narrow(self, a: Value) -> Value:
        """Doubles rounded to this vector's type."""
        return a if self.real is FLOAT64 else self.builder.fptrunc(a, self.type)

    # --- calls --------------------------------------------------------------------------------------------------------

    def intrinsic(self, name: str, *args: Value) -> Value:
        """LLVM's intrinsic of that name on vectors of this type."""
        suffix = f"v{self.lanes}f{self.real.bits}"
        return self.call(f"llvm.{name}.{suffix}", self.type, args)

    def call(self, name: str, result: ir.Type, args: Sequence[Value]) -> Value:
        """A function of the module, declared at its first use."""
        module = self.builder.module
        function = module.globals.get(name)
        if function is None:
            function = ir.Function(module, ir.FunctionType(result, [arg.type for arg in args]), name)
        return self.builder.call(function, list(args))

    # --- memory -------------------------------------------------------------------------------------------------------

    def load(self, pointer: Value, mask: Value | None = None) -> Value:
        """A vector from memory, aligned to one number; lanes that the mask leaves out are 0 and not read."""
        if mask is None:
            return self.builder.load(pointer, align=self.real.size, typ=self.type)
        name = f"llvm.masked.load.v{self.lanes}f{self.real.bits}.p0"
        return self.call(name, self.type, [pointer, ir.Constant(I32, self.real.size), mask, self.const(0.0)])

    def store(self, value: Value, pointer: Value, mask: Value | None = None) -> None:
        """A vector to memory; lanes that the mask leaves out are not written."""
        if mask is None:
            self.builder.store(value, pointer, align=self.real.size)
            return
        name = f"llvm.masked.store.v{self.lanes}f{self.real.bits}.p0"
        self.call(name, ir.VoidType(), [value, pointer, ir.Constant(I32, self.real.size), mask])

    def fetch(self, pointer: Value, *, write: bool = False, near: int = 2) -> None:
        """Ask for a line of memory that will be needed: into a second-level cache (`near` 3: the first), or, to write it, for
        ourselves alone."""
        numbers = [ir.Constant(I32, number) for number in (int(write), near, 1)]
        self.call("llvm.prefetch.p0", ir.VoidType(), [pointer, *numbers])
