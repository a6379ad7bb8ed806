"""A layer as one operator, for what traces it instead of running it: `torch.compile` and `torch.export`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from carousel.engines import Choice
from carousel.graph.kinds import Role
from carousel.graph.shapes import Sizes
from carousel.graph.step import Step
from carousel.nn.inputs import Inputs
from carousel.nn.seeds import seed_words

if TYPE_CHECKING:
    from carousel.nn.recurrent import Recurrent
    from carousel.nn.torch_layers import TorchLayer


class Traced:
    """Runs a layer by the compiled engine's operators, on padded batches.

    Args:
        engine: the layer's engine.
        graphs: the traced cell for evaluation and for training.
        sizes: of each layer.
        directions: D.
        reverse: whether the only direction is backwards.
        counted: whether sequences count their steps.
    """

    def __init__(
        self,
        engine: Choice,
        graphs: Mapping[bool, Step],
        sizes: Sequence[Sizes],
        directions: int,
        reverse: bool,
        counted: bool,
    ) -> None:
        self.counted = counted
        self.texts: dict[bool, list[str]] = {}
        self.noisy = {mode: Role.SEED in graph.ambient for mode, graph in graphs.items()}
        if engine.name != "cpu" or not graphs[False].inputs:
            return
        from carousel.engines.cpu.operators import spec

        for mode, graph in graphs.items():
            self.texts[mode] = [
                spec(graph, dict(each), [(reverse or d == 1, i * directions + d) for d in range(directions)], counted=counted)
                for i, each in enumerate(sizes)
            ]

    def fits(self, inputs: Inputs) -> bool:
        """Whether the operators can run these inputs."""
        like = inputs.like
        return bool(self.texts) and like.device.type == "cpu" and like.dtype in (torch.float32, torch.float64)

    def run(
        self, layer: Recurrent, inputs: Inputs, state: Any, lengths: Tensor | None, context: Any, seed: Any
    ) -> tuple[Tensor, Any]:
        """As the layer's own run, on padded batches: the output (T, B, ...) and the states."""
        graph = layer._graphs[layer.training]
        names = list(graph.states)
        shared, _ = layer._check.context(context, inputs.batch, inputs.like)
        start = layer._start(state, inputs.batch, inputs.like)
        first = next(iter(inputs.values.values()))
        T, B = first.shape[0], first.shape[1]
        words = seed_words(seed, first.device) if self.noisy[layer.training] else None
        keep = torch.is_grad_enabled()
        streams: list[dict[str, Tensor]] = [inputs.values] * layer.num_directions
        finals: list[dict[str, Tensor]] = []
        outputs: list[Tensor] = []
        for i in range(layer.num_layers):
            before, outputs, tensors, begun = outputs, [], [], []
            for direction in range(layer.num_directions):
                initial = dict(start[i * layer.num_directions + direction])
                if self.counted:
                    begun.append(initial.pop("time"))
                values = layer._side(direction)[i].values()
                tensors += [streams[direction][name] for name in graph.inputs]
                tensors += [initial[name] for name in names]
                tensors += [values[name] for name in graph.parameters]
                tensors += [shared[name] for name in graph.context]
            made = torch.ops.carousel.over_time(self.texts[layer.training][i], tensors, lengths, words, begun, keep)
            for direction in range(layer.num_directions):
                output, *final = made[direction * (1 + len(names)) : (direction + 1) * (1 + len(names))]
                outputs.append(output)
                found = dict(zip(names, final, strict=True))
                if self.counted:
                    run = torch.full((B, 1), T, device=first.device) if lengths is None else lengths.to(first.device)[:, None]
                    found["time"] = begun[direction] + run
                finals.append(found)
            if not layer.independent:
                outputs = [layer._merged(outputs, 2)]
            outputs = layer._skipped(i, before, outputs)
            streams = layer._next(i, outputs)
        output = layer._merged(outputs, 2)
        if lengths is not None and layer.skip == "highway":  # a gate's bias shows in the padding
            real = torch.arange(T, device=first.device)[:, None] < lengths.to(first.device)[None]
            output = torch.where(real.view(T, B, *[1] * (output.dim() - 2)), output, 0.0)
        return output, layer._layout.join(finals)


def run_torch_traced(layer: TorchLayer, x: Tensor, start: Mapping[str, Tensor]) -> tuple[Tensor, Any]:
    """A layer with torch's name, by one operator for each of its layers.

    Args:
        layer: what is run.
        x: (T, B, I).
        start: by name, what each sequence starts with, (L·D, B, ...).

    Returns:
        The output (T, B, D·O), and the state as torch has it.
    """
    finals: list[list[Tensor]] = []
    directions = layer._directions
    for i in range(layer.num_layers):
        given = []
        for at in range(i * directions, (i + 1) * directions):
            weights = {part: getattr(layer, name) for part, name in layer._parts[at].items()}
            given.append((weights, x, {name: tensor[at] for name, tensor in start.items()}))
        outputs, states = layer._cell.run_traced(given, layer.hidden_size)
        finals += states
        x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
        if i + 1 < layer.num_layers and layer.dropout:
            x = torch.nn.functional.dropout(x, layer.dropout, layer.training)
    state = tuple(torch.stack(parts) for parts in zip(*finals, strict=True))
    return x, state if len(state) > 1 else state[0]
