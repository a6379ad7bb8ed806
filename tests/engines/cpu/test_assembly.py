"""The machine code of whole kernels, for CPUs we have and have not: widths, spilled vectors, calls; and Haswell's code, run."""

import os
import re
import subprocess
import sys
import textwrap

import pytest

from carousel.cells import resolve_cell
from carousel.engines.cpu import kernel
from carousel.engines.cpu.compile import assembly
from carousel.engines.cpu.emit import emit
from carousel.engines.cpu.target import target
from carousel.engines.cpu.vectors import REALS
from carousel.graph import exp, tanh
from loops import loop_of, of_function
from machine_code import innermost

CPUS = ["znver5", "icelake-server", "haswell", "neoverse-n1", "apple-m1"]
CELLS = ["lstm", "gru", "peephole_lstm", "layer_norm_lstm"]

# Vectors that a kernel may put on the stack, by the number of registers: some stand outside the loops, some hold sums of a
# layer norm. Measured: AVX-512 0 to 4; AVX2 (16 registers) 0 to 10, layer_norm_lstm 38; NEON, two registers a vector, 2 to 41,
# layer_norm_lstm 137.
SPILLS = {"znver5": 6, "icelake-server": 6, "haswell": 14, "neoverse-n1": 50, "apple-m1": 50}
MORE = {"haswell": 45, "neoverse-n1": 160, "apple-m1": 160}  # layer_norm_lstm: eight sums at once, and their terms
_SPILLED = re.compile(r"^\s+v?mov\w+\s+%[xyz]mm\d+, -?\d*\(%rsp\)|^\s+st[pru]+\s+q\d+,.*\[sp", re.MULTILINE)
_CALL = re.compile(r"^\s+(?:callq?|blr?)\s+(\S+)", re.MULTILINE)
# The barrier, what it calls, and the product by its address.
_ALLOWED = re.compile(r"_?(carousel\.barrier|sched_yield)(@PLT)?$|\*|x\d+$")


def spilled(text):
    """How often a vector register is stored on the stack."""
    return len(_SPILLED.findall(text))


@pytest.mark.parametrize("real", ["float32", "float64"])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("cpu", CPUS)
def test_a_kernel(cpu, name, backward, real):
    text = emit(resolve_cell(name).graph, "asm", backward=backward, cpu=cpu, dtype=real)
    assert spilled(text) <= (MORE.get(cpu, 0) if name == "layer_norm_lstm" else 0) or spilled(text) <= SPILLS[cpu]
    assert [call for call in _CALL.findall(text) if not _ALLOWED.match(call)] == [], "functions are written in place"
    work = "\n".join("\n".join(loop) for loop in innermost(text))
    bits = target(cpu).bits
    register = {512: "%zmm", 256: "%ymm"}[bits]
    multiplies = (
        rf"v(?:mul|fn?m\w+)p[sd]\s.*{register}" if target(cpu).x86 else r"fm(?:ul|la|ls)(?:\.[24][sd]|\s+v\d+\.[24][sd])"
    )
    assert re.search(multiplies, work), "the passes' loops multiply whole registers"
    if bits == 512:
        assert not re.search(r"v(?:add|mul|fn?m\w+)p[sd]\s.*%ymm", work), "and no halves"
    if target(cpu).x86:
        assert not re.search(r"v(?:add|mul|fn?m\w+)s[sd]\s", work), "nor single numbers"


@pytest.mark.parametrize("cpu", CPUS)
def test_spilled_vectors_are_seen(cpu):
    """The check above can fail: forty exponentials that are all needed until the end."""

    def many(h):
        parts = [exp(h * (i + 2.0)) for i in range(40)]
        sums = [part + other for part, other in zip(parts, reversed(parts), strict=True)]
        total = sums[0] * parts[0]
        for part, other in zip(sums[1:], parts[1:], strict=True):
            total = tanh(total * part) - other
        return total

    text = assembly(kernel.build(loop_of(of_function(many)), target(cpu), REALS["float32"]), target(cpu))
    assert spilled(text) > SPILLS[cpu]


_RUN = """
    import sys, torch
    from carousel.engines.cpu.target import target
    from carousel.nn import Recurrent
    torch.set_num_threads(1)
    torch.manual_seed(0)
    assert target().cpu == sys.argv[1] and target().bits == int(sys.argv[2]), target()
    for name in ("lstm", "gru", "layer_norm_lstm"):
        for dtype, close in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
            ours = Recurrent(name, 9, 37, engine="cpu", dtype=dtype)
            theirs = Recurrent(name, 9, 37, engine="eager", dtype=dtype)
            theirs.load_state_dict(ours.state_dict())
            x, lengths, found = torch.randn(7, 11, 9, dtype=dtype), torch.tensor([7, 7, 6, 5, 5, 4, 3, 2, 2, 1, 0]), []
            for layer in (ours, theirs):
                given = x.clone().requires_grad_()
                output, _ = layer(given, lengths=lengths)
                output.square().sum().backward()
                found.append([output.detach(), given.grad, *(p.grad for p in layer.parameters())])
            for got, wanted in zip(*found, strict=True):
                assert got.abs().max() > 0
                assert (got - wanted).abs().max() <= close * (1 + wanted.abs().max()), (name, dtype)
    print("agrees")
"""


@pytest.mark.parametrize("cpu", ["haswell", "nehalem"])
def test_code_for_an_older_cpu_runs_here_and_agrees_with_eager(cpu):
    if not target(cpu).native:
        pytest.skip(f"this machine cannot run code for {cpu}")
    environment = {**os.environ, "CAROUSEL_CPU": cpu, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", textwrap.dedent(_RUN), cpu, str(target(cpu).bits)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "agrees"), done.stderr
