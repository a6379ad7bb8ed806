"""For which CPU code is written, and what its vector registers are."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm

from carousel.errors import ConfigError, unknown_name

_SSE = ("sse4.2",)
_AVX = (*_SSE, "avx")
_AVX2 = (*_AVX, "avx2", "fma", "bmi2")
_AVX512 = (*_AVX2, "avx512f", "avx512dq", "avx512bw", "avx512vl")
_X86, _ARM, _APPLE = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "arm64-apple-macosx"

# CPUs that can be asked for by name: LLVM's names. LLVM itself takes any name and writes plain code for one it does not know.
CPUS: dict[str, tuple[str, tuple[str, ...]]] = {
    "nehalem": (_X86, _SSE),
    "sandybridge": (_X86, _AVX),
    "haswell": (_X86, _AVX2),
    "skylake": (_X86, _AVX2),
    "alderlake": (_X86, _AVX2),
    "znver3": (_X86, _AVX2),
    "skylake-avx512": (_X86, _AVX512),
    "icelake-server": (_X86, _AVX512),
    "sapphirerapids": (_X86, (*_AVX512, "avx512fp16", "amx-tile")),
    "znver4": (_X86, (*_AVX512, "avx512bf16")),
    "znver5": (_X86, (*_AVX512, "avx512bf16", "avx512vp2intersect")),
    "neoverse-n1": (_ARM, ()),
    "neoverse-v1": (_ARM, ()),
    "neoverse-v2": (_ARM, ()),
    "cortex-a76": (_ARM, ()),
    "apple-m1": (_APPLE, ()),
    "apple-m4": (_APPLE, ()),
}


@dataclass(frozen=True)
class Target:
    """A kind of CPU.

    Attributes:
        triple: LLVM's name of the architecture and the system.
        cpu: LLVM's name of the CPU.
        features: what it has beyond (or lacks of) what its name says, as LLVM writes it.
        bits: the width of a vector as we write them. NEON's registers have half of it: LLVM takes two.
        fma: whether it multiplies and adds in one instruction.
        native: whether this machine can run the code.
    """

    triple: str
    cpu: str
    features: str
    bits: int
    fma: bool
    native: bool

    @property
    def x86(self) -> bool:
        """Whether it is of the x86 family."""
        return self.triple.startswith(("x86_64", "i686"))

    @property
    def avx512(self) -> bool:
        """Whether it has AVX-512: 32 registers of 512 bits, and masks."""
        return self.bits == 512

    def machine(self) -> Any:
        """LLVM's machine for it."""
        return _machine(self.triple, self.cpu, self.features)

    def __str__(self) -> str:
        return f"{self.cpu} ({self.bits} bits{', fma' if self.fma else ''})"


@functools.cache
def target(name: str | None = None) -> Target:
    """The CPU that code is written for: this machine's, unless `name` or the environment's ``CAROUSEL_CPU`` says another.

    Raises:
        ConfigError: no such CPU is known.
    """
    name = name or os.environ.get("CAROUSEL_CPU") or None
    triple, has = _host()
    if name is None:
        flat = ",".join(f"{'+' if there else '-'}{feature}" for feature, there in sorted(has.items()))
        return Target(triple, llvm.get_host_cpu_name(), flat, *_vectors(triple, has), native=True)
    if name not in CPUS:
        raise ConfigError(unknown_name("CPU", name, CPUS))
    family, needs = CPUS[name]
    same = _is_arm(triple) == _is_arm(family)
    there = same and all(has.get(feature) for feature in needs) and (not _is_arm(family) or name == llvm.get_host_cpu_name())
    return Target(triple if same else family, name, "", *_vectors(family, dict.fromkeys(needs, True)), native=there)


def _vectors(triple: str, has: dict[str, bool]) -> tuple[int, bool]:
    """The width of vectors, and whether there is a fused multiply-add."""
    if _is_arm(triple):
        return 256, True
    if all(has.get(feature) for feature in _AVX512):
        return 512, True
    return (256 if has.get("avx2") or has.get("avx") else 128), bool(has.get("fma"))


def _is_arm(triple: str) -> bool:
    return triple.startswith(("aarch64", "arm64"))


@functools.cache
def _host() -> tuple[str, dict[str, bool]]:
    return llvm.get_process_triple(), dict(llvm.get_host_cpu_features())


@functools.cache
def _machine(triple: str, cpu: str, features: str) -> Any:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    made = llvm.Target.from_triple(triple)
    return made.create_target_machine(cpu=cpu, features=features, opt=3, reloc="pic", codemodel="default", jit=True)
