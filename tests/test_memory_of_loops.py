"""Memory of training loops around a module: what lives between two steps, and the most within them."""

import gc
from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import pytest

import mlxopt as mo
from mlxopt import tree
from mlxopt.interop import functional

WIDTH, DEPTH, STEPS = 256, 8, 5
BATCH = mx.zeros((4, WIDTH)), mx.ones((4, WIDTH))

Loop = Callable[[nn.Module, mo.GradientTransformation, Callable[..., Any]], Any]


class Memory(NamedTuple):
    """Bytes as multiples of those of the parameters."""

    live: float
    peak: float


LEAST = Memory(live=3.1, peak=4.75)
"""Parameters and two moments; at the peak the gradients, and a new leaf for each that is on its way, besides."""


def updated_at_once(model: nn.Module, tx: mo.GradientTransformation, step: Callable[..., Any]) -> Any:
    """The loop of the examples: the model lets go of the old parameters before the new ones are computed."""
    params = model.trainable_parameters()
    state = tx.init(params)
    for _ in range(STEPS):
        params, state, _ = step(params, state, *BATCH)
        model.update(params)
        mx.eval(params, state)
    return params, state


def updated_after_eval(model: nn.Module, tx: mo.GradientTransformation, step: Callable[..., Any]) -> Any:
    """The model keeps the old parameters while the new ones are computed."""
    params = model.trainable_parameters()
    state = tx.init(params)
    for _ in range(STEPS):
        params, state, _ = step(params, state, *BATCH)
        mx.eval(params, state)
        model.update(params)
    return params, state


def updated_at_the_end(model: nn.Module, tx: mo.GradientTransformation, step: Callable[..., Any]) -> Any:
    """The model keeps the parameters of the start as long as the loop runs."""
    params = model.trainable_parameters()
    state = tx.init(params)
    for _ in range(STEPS):
        params, state, _ = step(params, state, *BATCH)
        mx.eval(params, state)
    return params, state


def measured(loop: Loop) -> Memory:
    """The memory of a loop, without what was there before, and without that of compiling its step."""
    gc.collect()
    mx.synchronize()
    mx.clear_cache()
    before = mx.get_active_memory()
    model = nn.Sequential(*[nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(DEPTH)])
    tx = mo.adamw(1e-3)
    step = mo.compile_step(functional(model, lambda model, x, y: nn.losses.mse_loss(model(x), y)), tx)
    loop(model, tx, step)
    gc.collect()
    mx.synchronize()
    mx.reset_peak_memory()
    kept = loop(model, tx, step)
    gc.collect()
    mx.synchronize()
    unit = tree.nbytes(kept[0])
    return Memory((mx.get_active_memory() - before) / unit, (mx.get_peak_memory() - before) / unit)


ON_CPU = pytest.mark.skipif(mx.default_device() != mx.cpu, reason="the buffers of a GPU are its own")


@ON_CPU
def test_a_loop_that_updates_the_model_at_once_holds_nothing_twice() -> None:
    memory = measured(updated_at_once)
    assert memory.live < LEAST.live
    assert memory.peak < LEAST.peak


@ON_CPU
def test_worse_loops_are_seen_to_be_worse() -> None:
    late, never = measured(updated_after_eval), measured(updated_at_the_end)
    assert never.live > LEAST.live + 0.8
    assert min(late.peak, never.peak) > LEAST.peak
