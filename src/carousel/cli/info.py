"""``carousel info``: what is installed, on what machine, and what can run. The first lines of a bug report."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from carousel import __version__
from carousel.cli.console import print_table
from carousel.cli.parsing import VerbParser

__all__ = ["parser", "run"]

PACKAGES: tuple[str, ...] = ("torch", "numpy", "llvmlite", "lightning", "torchmetrics", "safetensors", "jsonargparse", "rich")
PACKAGES += ("matplotlib", "tensorboard")
# The vector and matrix instructions that kernels care about, as Linux and macOS spell them.
FEATURES: tuple[str, ...] = (
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
)
FEATURES += ("amx_tile", "amx_bf16", "amx_int8", "neon", "asimd", "asimddp", "fphp", "bf16", "i8mm", "sve", "sve2")
VARIABLES: tuple[str, ...] = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
VARIABLES += ("CAROUSEL_ENGINE", "CAROUSEL_CPU", "CAROUSEL_CACHE", "CAROUSEL_DEBUG")


def run(arguments: Sequence[str]) -> int:
    """Run the verb on what follows it."""
    given = parser().parse(arguments)
    facts = _facts()
    if given.json:
        print(json.dumps(facts))
        return 0
    cpu = facts["cpu"]
    rows = [["carousel", facts["carousel"]], ["python", facts["python"]], ["platform", facts["platform"]]]
    rows += [[name, version or "not installed"] for name, version in facts["packages"].items()]
    rows += [["processor", cpu["name"]], ["features", " ".join(cpu["features"]) or "none known"]]
    rows += [["processors", f"{cpu['usable']} usable of {cpu['count']}"]]
    rows += [[name, value] for name, value in facts["environment"].items()]
    if facts["kernels"]:
        kernels, cache = facts["kernels"], facts["kernels"]["cache"]
        kept = f"{cache['path']}: {cache['files']} files, {cache['bytes'] / 2**20:.1f} MB"
        rows += [["code for", kernels["cpu"]], ["code kept in", kept if cache["path"] else "nowhere"]]
    rows += [
        [f"engine {engine['name']}", f"{'usable' if engine['usable'] else 'not usable'}: {engine['reason']}"]
        for engine in facts["engines"]
    ]
    print_table(["what", "here"], rows)
    return 0


def parser() -> VerbParser:
    """What the verb takes."""
    made = VerbParser("info", "Versions, processor, threads, and which engines work here.")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def _facts() -> dict[str, Any]:
    from carousel.engines import engines

    name, flags = _processor()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "carousel": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {package: _version(package) for package in PACKAGES},
        "cpu": {
            "name": name,
            "features": [feature for feature in FEATURES if feature in flags],
            "count": os.cpu_count(),
            "usable": usable,
        },
        "environment": {variable: os.environ[variable] for variable in VARIABLES if variable in os.environ},
        "kernels": _kernels(),
        "engines": [{"name": e.name, "usable": e.usable, "reason": e.reason} for e in engines()],
    }


def _kernels() -> dict[str, Any] | None:
    """For which CPU code is written, and what is kept of it; None where none can be written."""
    try:
        from carousel.engines.cpu import cache
        from carousel.engines.cpu.target import target
    except (ImportError, OSError):
        return None
    found = cache.info()
    path = str(found.path) if found.path else None
    return {"cpu": str(target()), "cache": {"path": path, "files": found.files, "bytes": found.bytes}}


def _version(package: str) -> str | None:
    # From the installed metadata: importing them all would take ten seconds.
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> tuple[str, frozenset[str]]:
    """The processor's name and its features."""
    if sys.platform == "linux":
        return _processor_from_proc(Path("/proc/cpuinfo"))
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string"), frozenset({"neon"} if platform.machine() == "arm64" else ())
    return platform.processor() or platform.machine(), frozenset()


def _processor_from_proc(path: Path) -> tuple[str, frozenset[str]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        return platform.machine(), frozenset()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", fields.get("Features", ""))
    return fields.get("model name", platform.machine()), frozenset(flags.split())


def _sysctl(name: str) -> str:
    import subprocess

    done = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip() or platform.machine()
