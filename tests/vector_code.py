"""Runs the vector code of one element-wise function on NumPy arrays."""

import ctypes
import functools

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir

from carousel.engines.cpu import functions
from carousel.engines.cpu.target import target
from carousel.engines.cpu.vectors import I64, POINTER, Vectors

# How many arguments, where not one.
COUNT = {"where": 3, "add": 4} | dict.fromkeys(("sub", "mul", "div", "greater", "equal", "maximum", "minimum", "remainder"), 2)


def write(name, cpu, real, setting=(), count=None):
    """A module with ``f(in..., out, n)`` that loops over whole vectors."""
    count = count or COUNT.get(name, 1)
    module = ir.Module("functions")
    module.triple = target(cpu).triple
    f = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER] * (count + 1) + [I64]), "f")
    b = ir.IRBuilder(f.append_basic_block())
    before, loop, after = b.block, b.append_basic_block(), b.append_basic_block()
    b.branch(loop)
    b.position_at_end(loop)
    i = b.phi(I64)
    v = Vectors(b, target(cpu), real)
    at = [b.gep(pointer, [i], source_etype=real.type) for pointer in f.args[:-1]]
    args = [b.load(pointer, align=real.size, typ=v.type) for pointer in at[:-1]]
    b.store(functions.emit(v, name, args, setting), at[-1], align=real.size)
    assert b.block is loop  # an emitter stays within the caller's block
    following = b.add(i, ir.Constant(I64, v.lanes))
    i.add_incoming(ir.Constant(I64, 0), before)
    i.add_incoming(following, loop)
    b.cbranch(b.icmp_signed("<", following, f.args[-1]), loop, after)
    b.position_at_end(after)
    b.ret_void()
    machine = target(cpu).machine()  # initialises LLVM
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    return parsed, machine


@functools.cache
def compiled(name, cpu, real, setting=(), count=None):
    """The function as one of NumPy arrays."""
    if not target(cpu).native:
        pytest.skip(f"this machine cannot run code for {cpu}")
    module, machine = write(name, cpu, real, setting, count)
    # An engine frees its machine, and target()'s is shared: so the engine gets one of its own and our object code.
    engine = llvm.create_mcjit_compiler(
        llvm.parse_assembly(""), llvm.Target.from_default_triple().create_target_machine(jit=True)
    )
    engine.add_object_file(llvm.ObjectFileRef.from_data(machine.emit_object(module)))
    engine.finalize_object()
    number = count or COUNT.get(name, 1)
    address = engine.get_function_address("f")
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (number + 1), ctypes.c_int64)(address)

    def run(*arrays):
        padded = [np.concatenate([a, np.ones(-len(a) % 16, a.dtype)]) for a in arrays]
        out = np.empty_like(padded[0])
        call(*(a.ctypes.data for a in padded), out.ctypes.data, len(out))
        return out[: len(arrays[0])]

    run.engine = engine  # the code lives as long as its engine
    return run
