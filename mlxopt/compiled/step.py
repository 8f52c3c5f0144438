"""Running a transformation: the whole step as one compiled program."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import mlx.core as mx

from mlxopt import tree
from mlxopt.base import GradientTransformation, Params, State, Updates, require_transformation
from mlxopt.compiled.program import TracedProgram
from mlxopt.compiled.streams import LARGE, clear_at_the_end_of_this_thread, stream_below, streams_by_path
from mlxopt.tracing import tracing
from mlxopt.tree.forms import widened
from mlxopt.tree.structure import is_container, require_plain
from mlxopt.update import apply_updates

Donate = bool | Literal["auto"]


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

    def program(grads: Updates, state: State, params: Params, extra: Mapping[str, Any]) -> tuple[Params, State]:
        return _advance(tx, grads, state, params, extra, donate)

    compiled = _compile("compile_update", ("grads", "state", "params", "extra"), program)

    def step(grads: Updates, state: State, params: Params, **extra: Any) -> tuple[Params, State]:
        advanced: tuple[Params, State] = compiled(grads, state, params, _as_arrays("compile_update", extra))
        return advanced

    return step


def compile_step(
    loss_fn: Callable[..., Any], tx: GradientTransformation, *, has_aux: bool = False, donate: Donate = "auto"
) -> Callable[..., tuple[Any, ...]]:
    """Compile loss, gradient, update and application into one program.

    The transformation receives ``value``, ``grad`` and ``value_fn`` of this batch. Draws from MLX's global random
    state differ from step to step, as they do outside of a program. What changes from step to step must be an array:
    a number in the batch is compiled in.

    Args:
        loss_fn: Function ``(params, *batch) -> loss``, or ``-> (loss, aux)``.
        tx: The transformation.
        has_aux: ``loss_fn`` returns a pair, the loss and a tree of anything else.
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

    def loss_and_aux(params: Params, batch: tuple[Any, ...]) -> tuple[mx.array, tuple[Any, ...]]:
        returned = loss_fn(params, *batch)
        if has_aux and not (isinstance(returned, tuple) and len(returned) == 2):
            raise TypeError(f"compile_step: with has_aux loss_fn must return (loss, aux), got {_kind(returned)}.")
        loss, *aux = returned if has_aux else (returned,)
        if not isinstance(loss, mx.array) or loss.shape != ():
            advice = "Pass has_aux=True for a pair (loss, aux)." if isinstance(loss, tuple) else "Average it."
            raise TypeError(f"compile_step: the loss must be one scalar array, got {_kind(loss)}. {advice}")
        return loss, tuple(aux)

    def program(params: Params, state: State, batch: tuple[Any, ...], extra: Mapping[str, Any]) -> tuple[Any, ...]:
        def at(leaves: list[mx.array]) -> tuple[mx.array, tuple[Any, ...]]:
            return loss_and_aux(tree.with_leaves(params, leaves), batch)

        # Leaf by leaf, since holes in the parameters have no gradient.
        (loss, aux), gradients = mx.value_and_grad(at)(tree.leaves(params))
        grads = tree.with_leaves(params, gradients)

        def value_fn(other: Params) -> mx.array:
            return loss_and_aux(tree.cast_like(other, params), batch)[0]

        known = {"value": loss, "grad": grads, "value_fn": value_fn}
        return *_advance(tx, grads, state, params, {**known, **extra}, donate), loss, *aux

    compiled = _compile("compile_step", ("params", "state", "batch", "extra"), program)

    def step(params: Params, state: State, *batch: Any, **extra: Any) -> tuple[Any, ...]:
        advanced: tuple[Any, ...] = compiled(params, state, batch, _as_arrays("compile_step", extra))
        return advanced

    return step


def _kind(value: Any) -> str:
    return f"shape {value.shape}" if isinstance(value, mx.array) else f"a {type(value).__name__}"


def _compile(where: str, names: tuple[str, ...], program: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of trees and of MLX's global random state.

    The key by which ``mx.compile`` finds a program again leaves out the types and lengths of tuples and lists, the
    types of numbers, and of the keys of dicts all but their hashes, which integers share (-1 and -2); the layout, a
    constant to it, puts them in. And ``mx.compile`` leaves its placeholders in the random state if tracing fails, which
    would break every later draw of the process.
    """

    def with_layout(layout: str, *trees: Any) -> Any:
        del layout
        return program(*trees)

    compiled = mx.compile(with_layout, inputs=mx.random.state, outputs=mx.random.state)

    def call(*trees: Any) -> Any:
        clear_at_the_end_of_this_thread()
        key = _random_key()
        try:
            return compiled(_layout(trees), *trees)
        except BaseException:
            with contextlib.suppress(ValueError, RuntimeError):  # inside another trace, which restores its own
                high, low = (int(part) for part in key)
                mx.random.seed(high << 32 | low)
            _require_known_leaves(where, dict(zip(names, trees, strict=True)))
            raise

    return call


def _require_known_leaves(where: str, arguments: Mapping[str, Any]) -> None:
    def require(leaf: Any) -> None:
        if not isinstance(leaf, (mx.array, bool, int, float, str)):
            raise tree.TreeError(
                f"every leaf must be an mx.array or a Python number, got a {type(leaf).__name__}. "
                "Wrap it in mx.array, or close over it"
            )

    with tree.naming(where):
        tree.map(require, arguments)


def _random_key() -> mx.array:
    state: Any = mx.random.state  # a list of one key, though the stubs call it an object
    key: mx.array = state[0]
    return key


def _layout(node: Any) -> str:
    """Spell the containers of a tree with the keys that are no text, a dot for an array, and the types of the rest."""
    kind = type(node)
    if kind is dict:
        parts, opening = node.values(), "{"
        if not _TEXT.issuperset(map(type, node)):
            opening += ",".join([f"{_spelled(type(key))} {key!r}" for key in node])
    elif is_container(node):
        require_plain(node)
        parts, opening = node, "[" if kind is list else f"{_spelled(kind)}("
    else:
        return "." if kind is mx.array else f"<{_spelled(kind)}>"
    return opening + "".join(["." if type(part) is mx.array else _layout(part) for part in parts]) + ")"


_TEXT = {str}


def _spelled(kind: type) -> str:
    """A type by more than its name, which two may share."""
    return f"{kind.__name__}@{id(kind)}"


def _advance(
    tx: GradientTransformation, grads: Updates, state: State, params: Params, extra: Mapping[str, Any], donate: Donate
) -> tuple[Params, State]:
    on_cpu = mx.default_device() == mx.cpu
    streams = streams_by_path(params) if on_cpu else {}
    with tracing(TracedProgram(streams)):
        updates, new_state = tx.update(widened(grads), state, params, **extra)
        new_params = apply_updates(params, updates)
    if donate is True or (donate == "auto" and on_cpu):
        new_state = tree.map_with_path(lambda path, leaf: _set_apart(leaf, stream_below(path, streams)), new_state)
    return new_params, new_state


def _set_apart(leaf: mx.array, stream: mx.Stream | None) -> mx.array:
    """End the kernel that computes a large leaf here.

    A fused kernel of several outputs can give none of them the memory of an input; one of a single output can. The copy
    shares its memory, and only keeps the leaf from being computed together with the parameter.
    """
    return mx.contiguous(leaf, stream=stream) if leaf.size >= LARGE else leaf


def _require_donate(where: str, donate: Any) -> None:
    if donate not in (True, False, "auto"):
        raise ValueError(f"{where}: donate must be True, False or 'auto', got {donate!r}. Pick one of them.")


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
