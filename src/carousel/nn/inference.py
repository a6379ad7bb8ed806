"""What a layer may do where nobody asks for a gradient: keep weights in fewer bits."""

from __future__ import annotations

from typing import Any

from carousel.errors import ConfigError, explain


class InferenceWeights:
    r"""The property `inference_weights` of a layer: None, or the name of a type in which the loop over time reads weights.

    With ``"bfloat16"`` the matrices that multiply at every step (the recurrent ones; in a stream, which meets its inputs one by
    one, all) are rounded to bfloat16, to the nearest, ties to even: a relative error of at most 2\ :sup:`-9` for each weight.
    States, inputs and sums stay in float32, in the same order of sums, so a result is what the rounded weights would give in
    float32, to the bit. The bytes of weights are halved, which counts where reading them is what takes the time: few sequences
    at once, and matrices beyond the second cache. ``docs/performance.md`` says what it gains and what it costs.

    It holds for calls of which no gradient is asked: under `torch.no_grad` or `torch.inference_mode`, or where nothing requires
    one. Training reads the weights as they are, and so do `torch.compile`, `torch.export`, `torch.func` and whatever else runs
    in the eager engine; the parameters stay what they are. (The first pass of `torch.utils.checkpoint` with
    ``use_reentrant=True`` runs without gradients: set None for training with it.)

    Raises:
        ConfigError: when it is set to an unknown type, on a layer that the engine ``cpu`` does not run, or on one that is
            not in float32; when the layer runs, if it has become one of float64 since.
    """

    def __get__(self, layer: Any, _owner: type | None = None) -> str | None:
        return getattr(layer, "_inference_weights", None)

    def __set__(self, layer: Any, value: str | None) -> None:
        if value is not None:
            _check(layer, value)
        layer._inference_weights = value


def _check(layer: Any, value: Any) -> None:
    who = type(layer).__name__
    if layer.engine.name != "cpu":
        raise ConfigError(
            explain(
                f"{who}.inference_weights: only the engine 'cpu' keeps weights in another type.",
                got=str(layer.engine),
                advice="leave inference_weights at None",
            )
        )
    from carousel.engines.cpu.vectors import REALS
    from carousel.engines.cpu.weights import STORED, stored

    if not isinstance(value, str) or value not in STORED:
        raise ConfigError(
            explain(f"{who}.inference_weights: there is no such type.", got=repr(value), expected="None or 'bfloat16'")
        )
    name = str(next((p.dtype for p in layer.parameters()), "")).removeprefix("torch.")
    if name not in REALS:
        raise ConfigError(explain(f"{who}.inference_weights: the layer must be in float32.", got=name or "no parameters"))
    stored(REALS[name], value)
