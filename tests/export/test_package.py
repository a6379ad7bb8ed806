"""What the package shows, and that its documentation runs."""

import re
from pathlib import Path

import pytest

import carousel.export

PAGE = Path(__file__).parents[2] / "docs" / "weights.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_public_names():
    assert carousel.export.__all__ == [
        "GATE_ORDERS",
        "GateOrder",
        "OnnxNode",
        "from_keras",
        "from_onnx",
        "from_torch",
        "permute_gates",
        "to_keras",
        "to_onnx",
        "to_torch",
    ]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_the_page_run(example):
    exec(compile(example, PAGE.name, "exec"), {})


def test_the_page_has_an_example_for_each_framework():
    for name in ("from_torch", "to_torch", "from_keras", "to_keras", "from_onnx", "to_onnx", "permute_gates"):
        assert any(f"{name}(" in example for example in EXAMPLES), name


def test_the_page_spells_the_gates_as_the_table_does():
    page = PAGE.read_text(encoding="utf-8")
    for name, row in {"torch": "torch", "keras": "Keras", "onnx": "ONNX", "flax": "Flax (`nnx`)", "equinox": "Equinox"}.items():
        orders = carousel.export.GATE_ORDERS[name]
        line = next(line for line in page.splitlines() if line.startswith(f"| {row} |") and "i " in line)
        assert " ".join(orders["lstm"].theirs) in line
        assert " ".join(orders["gru"].theirs) in line
