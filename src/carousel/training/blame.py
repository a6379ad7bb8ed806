"""Where a number that is not finite came from: the layer and the batch, once training has to stop for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from carousel.errors import TrainingError, explain

__all__ = ["bad_gradient", "bad_gradient_read_late", "bad_loss", "bad_weight", "bad_weights_error"]

ADVICE = "lower lr, clip harder (clip_norm, clip_value), or look at that batch; last/ and best/ hold what was good"


def bad_loss(model: nn.Module, measure: Callable[[Any], Any], batch: Any, *, epoch: int, number: int) -> TrainingError:
    """The error for a training loss that is not a finite number.

    Args:
        model: its layers are watched while the batch is measured once more.
        measure: measures a batch.
        batch: the bad one; None if it is gone.
        epoch: counted from 1.
        number: of the batch in its epoch, counted from 1.
    """
    what = f"the training loss is not a finite number in epoch {epoch}, batch {number}."
    layer = None if batch is None else _first_bad_layer(model, measure, batch)
    got = "NaN or infinity" if layer is None else f"NaN or infinity, first in the output of {layer}"
    return TrainingError(explain(what, got=got, advice=ADVICE))


def bad_gradient(model: nn.Module, *, epoch: int, number: int) -> TrainingError | None:
    """The error for gradients that are not finite; None if all are.

    Args:
        model: its parameters have the gradients.
        epoch: counted from 1.
        number: of the batch in its epoch, counted from 1.
    """
    bad = [name for name, parameter in model.named_parameters() if parameter.grad is not None and not _finite(parameter.grad)]
    if not bad:
        return None
    what = f"a gradient is not finite in epoch {epoch}, batch {number}; the weights are those before it."
    # Gradients run from the loss back, and layers are listed from the input on: the last in the list was the first to go.
    got = f"NaN or infinity, first in the gradient of {bad[-1]}"
    got += f" (and of {len(bad) - 1} more parameters before it)" if len(bad) > 1 else ""
    return TrainingError(explain(what, got=got, advice=ADVICE))


def bad_gradient_read_late(*, epoch: int, number: int) -> TrainingError:
    """The error for a gradient that was found not to be finite when it had reached the weights already."""
    what = f"the gradient was not finite in epoch {epoch}, batch {number}."
    advice = f"{ADVICE}; device=cpu names the layer"
    return TrainingError(explain(what, got="NaN or infinity", advice=advice))


def bad_weight(model: nn.Module) -> str | None:
    """The name of the first weight or statistic that is not finite, None if all are."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return next((name for name, tensor in named if not _finite(tensor)), None)


def bad_weights_error(name: str, *, epoch: int, number: int) -> TrainingError:
    """The error for weights that a step has made infinite.

    Args:
        name: the first of them.
        epoch: counted from 1.
        number: the last batch of the epoch that was learned from.
    """
    what = f"weights are not finite after epoch {epoch}, batch {number}."
    return TrainingError(explain(what, got=f"NaN or infinity, first in {name}", advice=ADVICE))


def _first_bad_layer(model: nn.Module, measure: Callable[[Any], Any], batch: Any) -> str | None:
    """Measure the batch once more, and name the first layer whose output is NaN or infinity, or else minus infinity.

    That alone may be meant, as a mask. What is drawn at random (dropout) is drawn anew, so that nothing may be found.
    """
    found: dict[str, str] = {}

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(layer: nn.Module, inputs: Any, output: Any) -> None:
            for kind, test in (("surely", _surely_bad), ("perhaps", torch.isneginf)):
                if kind not in found and any(bool(test(tensor).any()) for tensor in _tensors(output)):
                    given = any(bool(test(tensor).any()) for tensor in _tensors(inputs))
                    found[kind] = f"{name or 'the model'} ({type(layer).__name__})" + (", as was its input" if given else "")

        return look

    handles = [layer.register_forward_hook(watch(name)) for name, layer in model.named_modules()]
    try:
        with torch.no_grad():
            measure(batch)
    except Exception:  # whatever it is, it is not what training stops for
        return None
    finally:
        for handle in handles:
            handle.remove()
    return found.get("surely", found.get("perhaps"))


def _surely_bad(tensor: Tensor) -> Tensor:
    return torch.isnan(tensor) | torch.isposinf(tensor)


def _finite(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    values = tensor.coalesce().values() if tensor.layout == torch.sparse_coo else tensor
    return bool(torch.isfinite(values).all())


def _tensors(value: Any) -> Iterator[Tensor]:
    inner: Iterable[Any] = ()
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, list | tuple):
        inner = value
    elif isinstance(value, Mapping):
        inner = value.values()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = [getattr(value, item.name) for item in dataclasses.fields(value)]
    for item in inner:
        yield from _tensors(item)
