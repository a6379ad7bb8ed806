"""Which engine runs a layer, and why."""

import pytest
import torch

from carousel.cells import resolve_cell
from carousel.engines import choose, engines, load
from carousel.errors import ConfigError, KernelUnavailable
from carousel.nn import Recurrent

STEP = resolve_cell("gru").graph


def test_every_engine_says_whether_it_is_usable_and_why():
    table = {info.name: info for info in engines()}
    assert table["eager"].usable
    assert all(info.reason for info in table.values())


def test_the_choice_prints_its_reason():
    assert str(choose("eager", STEP)) == "eager (asked for)"
    assert str(choose("auto", STEP)).startswith("cpu (chosen as the fastest; ")
    assert str(choose("cpu", STEP)).startswith("cpu (asked for; ")


def test_what_cannot_be_compiled_runs_eager_and_says_why():
    step = resolve_cell("conv_lstm").graph
    assert str(choose("auto", step)).startswith("eager (chosen for this cell, since cpu cannot run it: ")
    assert "Convolution" in choose("auto", step).reason
    with pytest.raises(KernelUnavailable, match="Convolution"):
        choose("cpu", step)


def test_the_environment_chooses_in_place_of_auto_only(monkeypatch):
    monkeypatch.setenv("CAROUSEL_ENGINE", "eager")
    assert str(choose("auto", STEP)) == "eager (CAROUSEL_ENGINE asks for it)"
    assert choose("cpu", STEP).name == "cpu"
    monkeypatch.setenv("CAROUSEL_ENGINE", "gpu")
    with pytest.raises(ConfigError, match="unknown engine"):
        choose("auto", STEP)


def test_an_explicit_request_that_cannot_be_met_is_an_error_never_a_fallback():
    for info in engines():
        if info.usable:
            assert choose(info.name, STEP).name == info.name
        else:
            with pytest.raises(KernelUnavailable, match=f"'{info.name}' cannot run GRU"):
                choose(info.name, STEP)


@pytest.mark.parametrize("name", ["egaer", "", "CPU"])
def test_an_unknown_engine(name):
    with pytest.raises(ConfigError, match="unknown engine"):
        choose(name, STEP)


def test_a_type_that_no_compiled_loop_takes_is_an_error_where_it_was_asked_for_and_eager_where_not():
    x = torch.randn(3, 2, 3, dtype=torch.bfloat16)
    with pytest.raises(KernelUnavailable, match="bfloat16 on cpu"):
        Recurrent("gru", 3, 4, engine="cpu", dtype=torch.bfloat16)(x)
    assert Recurrent("gru", 3, 4, dtype=torch.bfloat16)(x)[0].dtype is torch.bfloat16


def test_under_autocast_the_loop_keeps_float32():
    layer, x = Recurrent("lstm", 3, 4), torch.randn(5, 2, 3, requires_grad=True)
    expected = layer(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)[0]
        (gradient,) = torch.autograd.grad(found.sum(), x)
    assert torch.equal(found, expected)
    assert torch.equal(gradient, torch.autograd.grad(expected.sum(), x)[0])


def test_a_choice_loads_its_engine():
    assert load(choose("auto", STEP)).name == choose("auto", STEP).name
