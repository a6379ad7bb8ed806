"""Cells as text and LaTeX. Golden texts are written anew with `pytest tests/graph/test_printing.py --update-golden`."""

import re
from pathlib import Path

import pytest

from carousel.cells import resolve_cell
from carousel.graph import Cell, exp, mean, printing, sigmoid, sqrt, tanh
from cases import CASES, every_case

GOLDEN = Path(__file__).parent.parent / "golden"
CELLS = {
    "elman": resolve_cell("elman"),
    "lstm": resolve_cell("lstm"),
    "peephole_lstm_old": resolve_cell("peephole_lstm", {"output_gate": "old"}),
    "gru": resolve_cell("gru"),
    "jordan_trace": resolve_cell("jordan", {"trace": 0.5, "output_activation": "softmax"}),
}
VIEWS = ("equations", "latex", "graph", "schedule", "backward")


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", CELLS)
def test_golden(name, view, request):
    text = getattr(printing, view)(CELLS[name]) + "\n"
    path = GOLDEN / f"{name}.{view}.txt"
    if request.config.getoption("--update-golden"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_no_golden_text_is_left_over():
    assert {path.name for path in GOLDEN.glob("*.txt")} == {f"{name}.{view}.txt" for name in CELLS for view in VIEWS}


def balanced(text, pairs=("{}", "()", "[]")):
    stack = []
    for letter in text:
        for opening, closing in pairs:
            if letter == opening:
                stack.append(closing)
            elif letter == closing and (not stack or stack.pop() != closing):
                return False
    return not stack


@every_case
def test_latex_has_balanced_brackets_and_one_equals_sign_a_line(case):
    text = printing.latex(case.cell)
    assert balanced(text), text
    assert text.count(r"\left") - text.count(r"\leftarrow") == text.count(r"\right") - text.count(r"\rightarrow")
    lines = text.splitlines()
    assert (lines[0], lines[-1]) == (r"\begin{aligned}", r"\end{aligned}")
    assert all(line.count("&=") == 1 for line in lines[1:-1])
    assert all(line.endswith(r"\\") for line in lines[1:-2])
    assert not re.search(r"None|<|#\d|object at", text)


@every_case
def test_equations_name_every_parameter_state_and_output(case):
    text = printing.equations(case.cell)
    for name in case.cell.graph.parameters:
        assert re.search(rf"\b{name}\b", text), f"{name} in {text}"
    for name in case.cell.state:
        assert re.search(rf"^{name}_t\s*=", text, re.MULTILINE), f"{name} in {text}"
    left = re.findall(r"^(\S+)\s+=", text, re.MULTILINE)
    assert len(set(left)) == len(left)
    assert not re.search(r"None|<|#\d|object at", text)


def wrote(step):
    """The right side of the single equation of a cell."""
    cell = type("Own", (Cell,), {"step": step})()
    return printing.equations(cell).split("= ", 1)[1], printing.latex(cell).split("&= ", 1)[1].split("\n")[0]


@pytest.mark.parametrize(
    ("step", "text", "latex"),
    [
        (lambda self, x, h: h - (h - self.vector("a")), "h_{t-1} - (h_{t-1} - a)", r"h_{t-1} - \left(h_{t-1} - a\right)"),
        (lambda self, x, h: (h - self.vector("a")) - h, "h_{t-1} - a - h_{t-1}", "h_{t-1} - a - h_{t-1}"),
        (lambda self, x, h: h * (1 - h), "h_{t-1} * (1 - h_{t-1})", r"h_{t-1} \odot \left(1 - h_{t-1}\right)"),
        (lambda self, x, h: h / (h * h), "h_{t-1} / (h_{t-1} * h_{t-1})", r"h_{t-1} / \left(h_{t-1} \odot h_{t-1}\right)"),
        (lambda self, x, h: -(h + 1), "-(h_{t-1} + 1)", r"-\left(h_{t-1} + 1\right)"),
        (lambda self, x, h: (h + 1) ** 3, "power(h_{t-1} + 1, 3)", r"\left(h_{t-1} + 1\right)^{3}"),
        (lambda self, x, h: h**-0.5, "power(h_{t-1}, -0.5)", "h_{t-1}^{-0.5}"),
        (lambda self, x, h: sqrt(h + 1), "sqrt(h_{t-1} + 1)", r"\sqrt{h_{t-1} + 1}"),
        (lambda self, x, h: abs(h) + mean(h), "abs(h_{t-1}) + mean(h_{t-1})", None),
        (lambda self, x, h: self.dense("U", h * h), "U (h_{t-1} * h_{t-1})", r"{U} \left(h_{t-1} \odot h_{t-1}\right)"),
        (lambda self, x, h: exp(-h), "exp(-h_{t-1})", r"\exp\left(-h_{t-1}\right)"),
        (lambda self, x, h: (h - 1) * h - (h + 1), "(h_{t-1} - 1) * h_{t-1} - (h_{t-1} + 1)", None),
    ],
)
def test_brackets_stand_where_the_formula_needs_them(step, text, latex):
    wrote_text, wrote_latex = wrote(step)
    assert wrote_text == text
    if latex is not None:
        assert wrote_latex == latex


def test_variables_of_the_step_become_equations():
    class Named(Cell):
        def step(self, x, h):
            alpha_x = sigmoid(self.affine("a", x, h))
            new = tanh(self.dense("U", alpha_x * h))
            return new  # noqa: RET504 - its name is what is tested

    assert printing.equations(Named()).splitlines() == [
        "alpha_x_t = sigmoid(W_a x_t + U_a h_{t-1} + b_a)",
        "h_t       = tanh(U (alpha_x_t * h_{t-1}))",
    ]
    assert r"\alpha_{x,t} &= \sigma\left(" in printing.latex(Named())


def test_a_state_written_over_is_told_from_its_old_value():
    class Twice(Cell):
        def step(self, x, h):
            h = tanh(self.affine("h", x, h))
            h = h * self.vector("g")
            return h  # noqa: RET504 - its name is what is tested

    text = printing.equations(Twice())
    assert text.count("h_{t-1}") == 1
    assert len(text.splitlines()) == len({line.split()[0] for line in text.splitlines()})


def test_the_goldens_cover_several_cells():
    assert len(CELLS) >= 4
    assert len(CASES) > len(CELLS)
