"""Finds a learning rate by trying a growing one: :func:`find_lr`."""

from __future__ import annotations

import copy
import io
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from carousel.errors import ConfigError, TrainingError, explain
from carousel.training import generators
from carousel.training.config import TrainingConfig
from carousel.training.device import choose_device
from carousel.training.optim import build_optimizer, clip_gradients
from carousel.training.result import Batches, TrainableModel
from carousel.training.saved import SavedRun

if TYPE_CHECKING:
    from carousel.training.saved import SavedRun

__all__ = ["RateTest", "draw_rate_test", "find_lr", "settle_rate"]

SMOOTHING = 0.9
DIVERGED = 4.0  # times the best loss
LEAST_STEPS = 20
LEAST_FALL = 0.01  # of the first loss
REPEATED = 10  # optimizer steps whose batches are used
SKIPPED = 5  # the first steps, where the mean of the losses is still rough


@dataclass(frozen=True)
class RateTest:
    """What a range test saw.

    Args:
        rates: the learning rate of each step, growing.
        losses: the smoothed training loss at each of them.
        best: the rate to use.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    best: float


def find_lr(
    model: TrainableModel,
    batches: Batches,
    config: TrainingConfig,
    *,
    lowest: float = 1e-6,
    highest: float = 1.0,
    steps: int = 100,
) -> RateTest:
    """Find a learning rate with the range test [1]: train with a rate that grows from step to step, and watch the loss.

    The rate grows by a constant factor. The loss is averaged over about ten steps (exponentially, without bias at the
    start). The test ends when it is four times its least value. Where the loss first has fallen by half of all that it
    falls, it falls steeply; half the rate there is taken, as the averaged loss is some steps late.

    Differs from [1]: the loss is looked at instead of the accuracy, one rate is chosen instead of a range, and ten steps'
    batches are repeated. Over new ones the loss of embeddings that start from scratch differs more from batch to batch
    than a hundred steps can teach (SST-2: 0.69, plus or minus 0.01, until it explodes); over a few it falls visibly.

    Nothing of the test remains: weights, buffers and generators are put back.

    Args:
        model: a ``torch.nn.Module`` with ``measure(batch) -> Measured``. Put back.
        batches: training batches, of which the first of epoch 0 are used.
        config: optimizer, clipping, `accumulate`, `device` and `seed`; its `lr` and `schedule` are not looked at. Floats
            are those of the model.
        lowest: the first rate.
        highest: the rate after the last step.
        steps: how many steps, at least 20.

    Returns:
        The curve, and the rate.

    Raises:
        ConfigError: there is nothing to train on, or `steps` is too small.
        TrainingError: the loss is not finite from the start, or falls at no rate.

    References:
        [1] Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, arXiv:1506.01186.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(explain("find_lr: the model must be a torch.nn.Module.", got=type(model).__qualname__))
    if not len(batches):
        raise ConfigError(
            explain("find_lr: there is nothing to train on.", got="0 batches", advice="give at least one example")
        )
    if steps < LEAST_STEPS:
        raise ConfigError(explain("find_lr: steps is too small.", got=str(steps), expected=f"at least {LEAST_STEPS}"))
    weights = copy.deepcopy(model.state_dict())
    training = model.training
    came_on = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with generators.own_generators(config.seed):
        try:
            model.to(choose_device(config.device)).train()
            rates, losses = _test(model, batches, config, lowest, highest, steps)
        finally:
            model.to(came_on)
            model.load_state_dict(weights)
            model.zero_grad(set_to_none=True)
            model.train(training)
    return RateTest(tuple(rates), tuple(losses), _choose(rates, losses))


def settle_rate(
    model: TrainableModel, batches: Batches, config: TrainingConfig, run_dir: Path, saved: SavedRun | None
) -> float:
    """The number that ``lr="auto"`` stands for in a run: what was found when it began, else what a test finds now.

    Args:
        model: put back after a test.
        batches: training batches.
        config: the options of the run.
        run_dir: gets ``lr_finder.png``; made if it does not exist.
        saved: the run that goes on, or None.
    """
    if saved is not None:
        return float(saved.config["lr"])
    test = find_lr(model, batches, config)
    run_dir.mkdir(parents=True, exist_ok=True)
    draw_rate_test(run_dir / "lr_finder.png", test)
    if config.progress:
        print(f"learning rate found: {test.best:g}", file=sys.stderr, flush=True)  # noqa: T201 - progress, for the eyes
    return test.best


def _test(
    model: Any, batches: Batches, config: TrainingConfig, lowest: float, highest: float, steps: int
) -> tuple[list[float], list[float]]:
    parameters: list[Tensor] = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = build_optimizer(replace(config, lr=lowest, lr_end=0.0), parameters)
    device = next(iter(parameters)).device
    rates: list[float] = []
    losses: list[float] = []
    mean = weight = 0.0
    groups = _groups(batches, config.batches_per_step)
    for step in range(steps):
        rate = lowest * (highest / lowest) ** (step / (steps - 1))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        total = items = 0.0
        for batch in next(groups):
            measured = model.measure(batch.to(device))
            (measured.loss * measured.items).backward()
            total += float(measured.loss.detach()) * measured.items
            items += measured.items
        if not math.isfinite(total):
            break
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad /= items
        mean = SMOOTHING * mean + (1 - SMOOTHING) * total / items
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        rates.append(rate)
        losses.append(mean / weight)
        if losses[-1] > DIVERGED * min(losses):
            break
        clip_gradients(parameters, value=config.clip_value, norm=config.clip_norm)
        optimizer.step()
    return rates, losses


def _groups(batches: Batches, size: int) -> Iterator[list[Any]]:
    """The batches of each optimizer step: those of the first few, again and again."""
    batches.set_epoch(0)
    first = list(itertools.islice(batches, REPEATED * size))
    return itertools.cycle([first[place : place + size] for place in range(0, len(first), size)])


def _choose(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Half the rate where half of the fall is done, if the loss falls visibly."""
    later = losses[SKIPPED:]
    fall = later[0] - min(later) if later else 0.0
    if not later or not fall > LEAST_FALL * abs(later[0]):
        what = "no learning rate found: the training loss falls at no rate."
        got = f"losses from {losses[0]:.4g} to {min(losses):.4g}" if losses else "a loss that is not a finite number"
        raise TrainingError(explain(what, got=got, advice="give lr a number such as 0.001, and look at the data and the loss"))
    half = next(place for place, loss in enumerate(later) if loss <= later[0] - fall / 2)
    return float(f"{rates[SKIPPED + half] / 2:.2g}")


def draw_rate_test(path: Path, test: RateTest) -> None:
    """Draw the loss over the rate, and mark the rate that was chosen.

    Args:
        path: the PNG to write, whole or not at all.
        test: what :func:`find_lr` returned.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from carousel.files import write_file
    from carousel.training.curves import INK, PALE, TRAIN, VALID

    figure = Figure(figsize=(5.4, 3.9), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.13, right=0.95, bottom=0.15, top=0.88)
    axes = figure.add_subplot()
    axes.plot(test.rates, test.losses, color=TRAIN, linewidth=2.0)
    axes.axvline(test.best, color=VALID, linewidth=1.4)
    axes.set_xscale("log")
    axes.set_title("learning rate", loc="left", color=INK, fontsize=11, fontweight="bold")
    axes.set_title(f"chosen: {test.best:g}", loc="right", color=VALID, fontsize=9)
    axes.set_xlabel("learning rate", color=INK)
    axes.set_ylabel("training loss", color=INK)
    axes.grid(axis="y", color=PALE, linewidth=0.8)
    axes.tick_params(colors=INK, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(PALE)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    write_file(path, image.getvalue())
