"""torch's layers and ours from the same arguments and with the same weights, and what the two must agree on."""

import sys
import types
import unittest
from functools import cache
from unittest import mock

import torch

import carousel.nn

LAYERS = ("LSTM", "GRU", "RNN")
CELLS = ("LSTMCell", "GRUCell", "RNNCell")

# Two orders of summation in float64: measured over all tests here, at most 4e-14, in gradients whose size is about 10, and
# 4e-13 of numbers above 1e-3; these are that times a margin.
SAME = {"rtol": 1e-11, "atol": 1e-12}


def twins(name, *args, dtype=torch.float64, **kwargs):
    """torch's layer and ours, with the same weights copied by a strict state dict."""
    theirs = getattr(torch.nn, name)(*args, dtype=dtype, **kwargs)
    ours = getattr(carousel.nn, name)(*args, dtype=dtype, **kwargs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def tensors(value):
    """All tensors in nested tuples, lists and packed sequences, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, torch.nn.utils.rnn.PackedSequence):
        return [value.data]
    return [] if value is None else [tensor for part in value for tensor in tensors(part)]


def assert_same_results(theirs, ours, *args):
    """Outputs, states and the gradients of every parameter, input and initial state agree."""
    leaves = [tensor for tensor in tensors(args) if tensor.is_floating_point() and tensor.requires_grad]
    results, gradients = [], []
    for module in (theirs, ours):
        torch.manual_seed(11)
        result = module(*args)
        found = tensors(result)
        # Every number counts with a weight of its own, so that no two errors cancel.
        loss = sum((out * torch.linspace(-1.0, 2.0, out.numel(), dtype=out.dtype).view_as(out)).sum() for out in found)
        wanted = [*module.parameters(), *leaves]
        results.append(result)
        gradients.append(torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True))
    assert same_structure(*results)
    for theirs_part, ours_part in zip(tensors(results[0]), tensors(results[1]), strict=True):
        torch.testing.assert_close(ours_part, theirs_part, **SAME)
    for theirs_part, ours_part in zip(*gradients, strict=True):
        torch.testing.assert_close(ours_part, theirs_part, **SAME)


def same_structure(a, b):
    if isinstance(a, tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same_structure, a, b))
    return type(a) is type(b)


@cache
def module_infos():
    """torch's own inputs for its modules, by the module's name."""
    # Importing them freezes torch.backends' flags for the whole process, which would break what sets them later; and asks
    # for a package of which only one base class is used.
    stand_in = types.ModuleType("expecttest")
    stand_in.TestCase = unittest.TestCase
    sys.modules.setdefault("expecttest", stand_in)
    with mock.patch("torch.backends.disable_global_flags"):
        from torch.testing._internal.common_modules import module_db
    return {info.name.removeprefix("nn."): info for info in module_db}


def module_inputs(name, **kwargs):
    """The entries of torch's own inputs for one module, in float64."""
    info = module_infos()[name]
    return info.module_inputs_func(info, device="cpu", dtype=torch.float64, requires_grad=True, training=True, **kwargs)


def module_error_inputs(name):
    """The entries of what torch's module must refuse."""
    info = module_infos()[name]
    return info.module_error_inputs_func(info, device="cpu", dtype=torch.float32, requires_grad=False, training=True)
