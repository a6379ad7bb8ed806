"""Weights from and to torch's recurrent modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from carousel.cells import resolve_cell
from carousel.errors import ConfigError, DTypeError, explain
from carousel.export.weights.dialects import TORCH
from carousel.export.weights.layers import build_layer, hidden_sizes, refuse, take_parameters
from carousel.nn import Recurrent
from carousel.nn.gates import restack, unstack
from carousel.nn.torch_layers import TorchLayer


def from_torch(module: nn.RNNBase | TorchLayer) -> Recurrent:
    """Make a layer with the weights of a torch module.

    An LSTM becomes the cell ``lstm`` or, with `proj_size`, ``lstmp``; a GRU ``gru_reset_after``; an RNN ``elman``. Number of
    layers, directions, `batch_first`, `dropout` between layers, dtype, device and training mode stay.

    torch keeps two biases for each gate; the layer has one, their sum (but for b_hn of the GRU, which stays apart). The
    outputs are the same, but plain SGD moves the sum only half as fast as it moves torch's pair. Without biases in the module,
    the layer has zeros, which training moves.

    Args:
        module: `torch.nn.LSTM`, `torch.nn.GRU` or `torch.nn.RNN`, or the same of :mod:`carousel.nn`. Not changed; the weights
            are copied.

    Returns:
        The layer; it takes the inputs that the module takes.

    Raises:
        DTypeError: `module` is none of these.

    Example:
        >>> module = torch.nn.LSTM(3, 4, num_layers=2, bidirectional=True)
        >>> layer, x = from_torch(module), torch.randn(5, 2, 3)
        >>> torch.allclose(layer(x)[0], module(x)[0], atol=1e-6)
        True
    """
    if not isinstance(module, nn.RNNBase | TorchLayer):
        expected = "torch.nn.LSTM, GRU or RNN, or carousel.nn's of the same name"
        raise DTypeError(explain("from_torch: this is no recurrent module.", got=type(module).__name__, expected=expected))
    kind, _, nonlinearity = module.mode.partition("_")  # RNN_TANH
    settings = {"projected": module.proj_size > 0, "nonlinearity": nonlinearity.lower()}
    row = TORCH.of_layer("from_torch", kind, settings)
    options = {**row.options, **({"proj_size": module.proj_size} if module.proj_size else {})}
    directions = ("", "_reverse") if module.bidirectional else ("",)

    def stacked(suffix: str) -> dict[str, torch.Tensor]:
        return {name: getattr(module, name + suffix) for name in row.layout if module.bias or "bias" not in name}

    parameters = [
        [unstack(row.layout, stacked(f"_l{layer}{direction}")) for direction in directions]
        for layer in range(module.num_layers)
    ]
    layer = build_layer(
        resolve_cell(row.cell, options),
        module.input_size,
        [module.hidden_size] * module.num_layers,
        parameters,
        {"batch_first": module.batch_first, "dropout": module.dropout},
    )
    return layer.train(module.training)


def to_torch(layer: Recurrent) -> nn.LSTM | nn.GRU | nn.RNN:
    """Make a torch module with the weights of a layer.

    The cells ``lstm`` and ``lstmp`` become `torch.nn.LSTM`, ``gru_reset_after`` `torch.nn.GRU`, ``elman`` and ``irnn``
    `torch.nn.RNN`. The whole of each bias is in torch's `bias_ih`, and `bias_hh` is zero, but for n's of the GRU, which is
    b_hn. In evaluation the module gives the layer's outputs; transforms that act in training only are left behind.

    Args:
        layer: with one hidden size. Not changed; the weights are copied.

    Returns:
        The module; it takes the inputs that the layer takes, without `lengths` (use a PackedSequence).

    Raises:
        ConfigError: torch has nothing that computes what the layer does.
        DTypeError: `layer` is no `Recurrent`.

    Example:
        >>> layer = Recurrent("gru_reset_after", input_size=3, hidden_size=4)
        >>> module, x = to_torch(layer), torch.randn(5, 2, 3)
        >>> torch.allclose(layer(x)[0], module(x)[0], atol=1e-6)
        True
    """
    parameters = take_parameters("to_torch", layer)
    row = TORCH.of_cell("to_torch", layer.cell)
    sizes = hidden_sizes(layer)
    refuse("to_torch", "hidden_size", layer.hidden_size, allowed=len(set(sizes)) == 1, expected="one size for all layers")
    refuse("to_torch", "reverse", layer.reverse, allowed=not layer.reverse, expected="reverse=False")
    together = layer.merge == "concat" or not layer.bidirectional
    refuse("to_torch", "merge", layer.merge, allowed=together, expected="merge='concat'")
    proj_size = layer.cell.options().get("proj_size", 0)
    if proj_size >= sizes[0]:
        raise ConfigError(
            explain("to_torch: torch projects to fewer units only.", got=f"proj_size={proj_size}, hidden_size={sizes[0]}")
        )
    settings: dict[str, Any] = {name: value for name, value in row.settings.items() if name != "projected"}
    if proj_size:
        settings["proj_size"] = proj_size
    with torch.random.fork_rng(devices=[]):  # on the CPU the module starts from random weights, which are not kept
        module = getattr(nn, row.kind)(
            layer.input_size,
            sizes[0],
            num_layers=layer.num_layers,
            bidirectional=layer.bidirectional,
            batch_first=layer.batch_first,
            dropout=layer.dropout if layer.num_layers > 1 else 0.0,  # torch warns where there is nothing between layers
            device="cpu",
            dtype=torch.float32,
            **settings,
        )
    like = next(iter(parameters[0][0].values()))
    module.to(device=like.device, dtype=like.dtype)
    state = {
        f"{name}_l{number}{direction}": tensor
        for number, both in enumerate(parameters)
        for direction, values in zip(("", "_reverse"), both, strict=False)
        for name, tensor in restack(row.layout, values).items()
    }
    module.load_state_dict(state)
    made: nn.LSTM | nn.GRU | nn.RNN = module.train(layer.training)
    return made
