"""Running a transformation: the whole step as one compiled program."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import mlx.core as mx

from mlxopt import tree
from mlxopt.base import GradientTransformation, Params, State, Updates, require_transformation
from mlxopt.compiled.calling import as_arrays
from mlxopt.compiled.losses import Loss
from mlxopt.compiled.program import TracedProgram
from mlxopt.compiled.ranks import ranks_of
from mlxopt.compiled.streams import LARGE, stream_below, streams_by_path
from mlxopt.tracing import tracing
from mlxopt.tree.forms import widened
from mlxopt.update import apply_updates

if TYPE_CHECKING:
    from mlxopt.distributed.exchange import Exchange

Donate = bool | Literal["auto"]


def compile_update(
    tx: GradientTransformation,
    *,
    group: "mx.distributed.Group | Exchange | None" = None,
    donate: Donate = "auto",
) -> Callable[..., tuple[Params, State]]:
    """Compile the update of a transformation and its application to the parameters into one program.

    Everything between gradient and parameter happens in float32, and is rounded once.

    Args:
        tx: The transformation.
        group: Ranks that make the step together, by ``mx.distributed.init()``: gradients, and ``value`` if it is given,
            become means over them. See the README of ``mlxopt.distributed``.
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
    require_donate("compile_update", donate)

    ranks = ranks_of("compile_update", tx, group)

    def program(grads: Updates, state: State, params: Params, extra: Mapping[str, Any]) -> tuple[Params, State]:
        decided = {name: value for name, value in extra.items() if name == "value"}
        grads, decided = ranks.mean(grads, decided)
        return advance(tx, grads, state, params, {**extra, **decided}, donate)

    run = ranks.compiled("compile_update", ("grads", "state", "params", "extra"), program)

    def step(grads: Updates, state: State, params: Params, **extra: Any) -> tuple[Params, State]:
        advanced: tuple[Params, State] = run(grads, state, params, as_arrays("compile_update", extra))
        return advanced

    return step


def compile_step(
    loss_fn: Callable[..., Any],
    tx: GradientTransformation,
    *,
    has_aux: bool = False,
    weighted: bool = False,
    group: "mx.distributed.Group | Exchange | None" = None,
    donate: Donate = "auto",
) -> Callable[..., tuple[Any, ...]]:
    """Compile loss, gradient, update and application into one program.

    The transformation receives ``value``, ``grad`` and ``value_fn`` of this batch. Draws from MLX's global random
    state differ from step to step, as they do outside of a program. What changes from step to step must be an array:
    a number in the batch is compiled in.

    Args:
        loss_fn: Function ``(params, *batch) -> loss``, or ``-> (loss, aux)``.
        tx: The transformation.
        has_aux: ``loss_fn`` returns a tree of anything else, last.
        weighted: ``loss_fn`` returns ``(loss, weight)``, where the weight is what the loss is a mean over, such as the
            number of tokens. By it ranks count in means; by default all count the same.
        group: Ranks that make the step together, each with its part of the batch, by ``mx.distributed.init()``: loss
            and gradients are means over them. See the README of ``mlxopt.distributed``.
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
    require_donate("compile_step", donate)
    ranks = ranks_of("compile_step", tx, group)
    loss = ranks.loss(Loss("compile_step", loss_fn, has_aux=has_aux, weighted=weighted))

    def program(params: Params, state: State, batch: tuple[Any, ...], extra: Mapping[str, Any]) -> tuple[Any, ...]:
        answer, grads = loss.value_and_grad(params, batch)

        def value_fn(other: Params) -> mx.array:
            return loss(tree.cast_like(other, params), batch).loss

        known = {"value": answer.loss, "grad": grads, "value_fn": value_fn}
        return *advance(tx, grads, state, params, {**known, **extra}, donate), answer.loss, *answer.aux

    run = ranks.compiled("compile_step", ("params", "state", "batch", "extra"), program)

    def step(params: Params, state: State, *batch: Any, **extra: Any) -> tuple[Any, ...]:
        advanced: tuple[Any, ...] = run(params, state, batch, as_arrays("compile_step", extra))
        return advanced

    return step


def advance(
    tx: GradientTransformation, grads: Updates, state: State, params: Params, extra: Mapping[str, Any], donate: Donate
) -> tuple[Params, State]:
    """Update and apply, while a program is traced."""
    with traced_on_streams(params) as streams:
        updates, new_state = tx.update(widened(grads), state, params, **extra)
        new_params = apply_updates(params, updates)
    if donate is True or (donate == "auto" and mx.default_device() == mx.cpu):
        new_state = tree.map_with_path(lambda path, leaf: _set_apart(leaf, stream_below(path, streams)), new_state)
    return new_params, new_state


@contextlib.contextmanager
def traced_on_streams(params: Params) -> Iterator[Mapping[str, mx.Stream]]:
    """Trace functions of leaves so that large leaves share the streams of the CPU."""
    streams = streams_by_path(params) if mx.default_device() == mx.cpu else {}
    with tracing(TracedProgram(streams)):
        yield streams


def _set_apart(leaf: mx.array, stream: mx.Stream | None) -> mx.array:
    """End the kernel that computes a large leaf here.

    A fused kernel of several outputs can give none of them the memory of an input; one of a single output can. The copy
    shares its memory, and only keeps the leaf from being computed together with the parameter.
    """
    return mx.contiguous(leaf, stream=stream) if leaf.size >= LARGE else leaf


def require_donate(where: str, donate: Any) -> None:
    """Raise unless it is one of the three."""
    if donate not in (True, False, "auto"):
        raise ValueError(f"{where}: donate must be True, False or 'auto', got {donate!r}. Pick one of them.")
