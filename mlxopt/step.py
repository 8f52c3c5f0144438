"""Running a transformation: the whole step as one compiled program."""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, Literal

import mlx.core as mx

from mlxopt import tree
from mlxopt.base import GradientTransformation, Params, State, Updates, require_transformation
from mlxopt.update import apply_updates

Donate = bool | Literal["auto"]

LARGE = 2**16
"""Elements from which a leaf is worth a stream of its own, and memory worth handing on."""


def compile_update(tx: GradientTransformation, *, donate: Donate = "auto") -> Callable[..., tuple[Params, State]]:
    """Compile the update of a transformation and its application to the parameters into one program.

    Everything between gradient and parameter happens in float32, and is rounded once.

    Args:
        tx: The transformation.
        donate: Let new large leaves take the memory of the old ones, if nothing else refers to those. On the CPU this
            is as fast, and is what "auto" does; on a GPU it costs bandwidth, and "auto" does not.

    Returns:
        Function ``(grads, state, params, **extra) -> (params, state)``; extra arguments are arrays or numbers.

    Example:
        >>> from mlxopt import sgd
        >>> tx = sgd(0.5)
        >>> step = compile_update(tx)
        >>> params = {"w": mx.array(1.0)}
        >>> step({"w": mx.array(1.0)}, tx.init(params), params)[0]
        {'w': array(0.5, dtype=float32)}
    """
    require_transformation("compile_update", tx)
    _require_donate("compile_update", donate)

    def program(
        layout: str, grads: Updates, state: State, params: Params, extra: Mapping[str, Any]
    ) -> tuple[Params, State]:
        del layout
        return _advance(tx, grads, state, params, extra, donate)

    compiled = mx.compile(program)

    def step(grads: Updates, state: State, params: Params, **extra: Any) -> tuple[Params, State]:
        advanced: tuple[Params, State] = compiled(
            _layout(state), grads, state, params, _as_arrays("compile_update", extra)
        )
        return advanced

    return step


def compile_step(
    loss_fn: Callable[..., Any], tx: GradientTransformation, *, has_aux: bool = False, donate: Donate = "auto"
) -> Callable[..., tuple[Any, ...]]:
    """Compile loss, gradient, update and application into one program.

    The transformation receives ``value``, ``grad`` and ``value_fn`` of this batch. Draws from MLX's global random
    state differ from step to step, as they do outside of a program.

    Args:
        loss_fn: Function ``(params, *batch) -> loss``, or ``-> (loss, aux)``.
        tx: The transformation.
        has_aux: ``loss_fn`` returns more than the loss: ``(loss, aux)``.
        donate: As for :func:`compile_update`.

    Returns:
        Function ``(params, state, *batch, **extra) -> (params, state, loss)``, followed by ``aux`` if there is one. The
        loss is that of the parameters that came in.

    Example:
        >>> from mlxopt import sgd
        >>> tx = sgd(0.25)
        >>> step = compile_step(lambda params, x: mx.square(params["w"] - x), tx)
        >>> params = {"w": mx.array(1.0)}
        >>> params, state, loss = step(params, tx.init(params), mx.array(3.0))
        >>> params, loss
        ({'w': array(2, dtype=float32)}, array(4, dtype=float32))
    """
    require_transformation("compile_step", tx)
    _require_donate("compile_step", donate)
    if not callable(loss_fn):
        raise TypeError(f"compile_step: loss_fn must be a function, got {loss_fn!r}. Pass loss_fn(params, *batch).")
    value_and_grad = mx.value_and_grad(loss_fn)

    def program(
        layout: str, params: Params, state: State, batch: tuple[Any, ...], extra: Mapping[str, Any]
    ) -> tuple[Any, ...]:
        del layout
        value, grads = value_and_grad(params, *batch)
        loss, *aux = value if has_aux else (value,)

        def value_fn(other: Params) -> mx.array:
            other_value: mx.array = loss_fn(other, *batch)[0] if has_aux else loss_fn(other, *batch)
            return other_value

        known = {"value": loss, "grad": grads, "value_fn": value_fn}
        return *_advance(tx, grads, state, params, {**known, **extra}, donate), loss, *aux

    compiled = mx.compile(program, inputs=mx.random.state, outputs=mx.random.state)

    def step(params: Params, state: State, *batch: Any, **extra: Any) -> tuple[Any, ...]:
        advanced: tuple[Any, ...] = compiled(_layout(state), params, state, batch, _as_arrays("compile_step", extra))
        return advanced

    return step


def _advance(
    tx: GradientTransformation, grads: Updates, state: State, params: Params, extra: Mapping[str, Any], donate: Donate
) -> tuple[Params, State]:
    on_cpu = mx.default_device() == mx.cpu
    streams = _streams_by_path(params) if on_cpu else {}
    with tree.on_streams(streams):
        updates, new_state = tx.update(tree.map(tree.widen, grads), state, params, **extra)
        with tree.naming(f"the state of {tx.name}"):
            tree.map(_require_same_type, state, new_state)
        new_params = apply_updates(params, updates)
    if donate is True or (donate == "auto" and on_cpu):
        new_state = tree.map_with_path(lambda path, leaf: _set_apart(leaf, _stream_below(path, streams)), new_state)
    return new_params, new_state


def _set_apart(leaf: mx.array, stream: mx.Stream | None) -> mx.array:
    """End the kernel that computes a large leaf here.

    A fused kernel of several outputs can give none of them the memory of an input; one of a single output can. The copy
    shares its memory, and only keeps the leaf from being computed together with the parameter.
    """
    return mx.contiguous(leaf, stream=stream) if leaf.size >= LARGE else leaf


@functools.cache
def _cpu_streams() -> list[mx.Stream]:
    """A few streams of the CPU: MLX runs each on one thread."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [mx.default_stream(mx.cpu), *(mx.new_stream(mx.cpu) for _ in range(min(cores, 4) - 1))]


def _streams_by_path(params: Params) -> dict[str, mx.Stream]:
    """Share large leaves out over the streams of the CPU: largest first, each to the stream with least to do."""
    large = [(leaf.size, path) for path, leaf in tree.items(params) if leaf.size >= LARGE]
    if len(large) < 2:
        return {}
    streams = _cpu_streams()
    work, chosen = [0] * len(streams), {}
    for size, path in sorted(large, reverse=True):
        index = work.index(min(work))
        work[index] += size
        chosen[path] = streams[index]
    return chosen


def _stream_below(path: str, streams: Mapping[str, mx.Stream]) -> mx.Stream | None:
    """The stream of the parameter that a leaf of the state belongs to: the one whose path its own ends with."""
    while path and path not in streams:
        _, _, path = path.partition(".")
    return streams.get(path)


def _require_donate(where: str, donate: Any) -> None:
    if donate not in (True, False, "auto"):
        raise ValueError(f"{where}: donate must be True, False or 'auto', got {donate!r}. Pick one of them.")


def _require_same_type(old: mx.array, new: mx.array) -> None:
    if not isinstance(new, mx.array):
        raise tree.TreeError(f"update put {new!r} where only an array is kept from step to step. Wrap it in mx.array")
    if (old.shape, old.dtype) != (new.shape, new.dtype):
        raise tree.TreeError(
            f"update turned {old.dtype} of shape {old.shape} into {new.dtype} of shape {new.shape}, "
            "so that every step would be compiled anew. Cast it back"
        )


def _layout(state: State) -> str:
    """Name the structure that the cache key of ``mx.compile`` leaves out: lengths and types of tuples."""
    if isinstance(state, tuple):
        return f"{type(state).__name__}({','.join(_layout(part) for part in state)})"
    return type(state).__name__


def _as_arrays(where: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Make arrays of numbers, which would otherwise be compiled in, one program for each value."""

    def as_array(path: str, value: Any) -> mx.array:
        if not isinstance(value, (mx.array, bool, int, float)):
            raise TypeError(
                f"{where}: the extra argument '{path}' must be an array or a number, got {value!r}. "
                "A compiled program takes no functions or objects; close over it when the transformation is built."
            )
        return mx.array(value)

    arrays: dict[str, Any] = tree.map_with_path(as_array, dict(extra))
    return arrays
