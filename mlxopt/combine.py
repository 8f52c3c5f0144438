"""Making transformations from transformations: one after the other, or each on its own leaves."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Literal, NamedTuple

from mlxopt import checks, tree
from mlxopt.base import (
    GradientTransformation,
    Inner,
    Mask,
    Params,
    State,
    Updates,
    require_transformation,
    set_to_zero,
)
from mlxopt.extras import told
from mlxopt.readable import readable
from mlxopt.tree.choice import Answers, Choice


@readable
def chain(*transformations: GradientTransformation) -> GradientTransformation:
    """Apply transformations one after the other.

    The state is the tuple of theirs. Chains inside a chain dissolve, a chain of one is that one, and a chain of none
    passes updates on: ``chain`` is associative to the letter.

    Args:
        transformations: First to last.

    Example:
        >>> from mlxopt import clip, scale
        >>> chain(clip(1.0), scale(-0.1))
        chain(clip(1.0), scale(-0.1))
    """
    for tx in transformations:
        _require_one_by_one("chain", tx, "chain(*list)")
        require_transformation("chain", tx)
    if len(transformations) == 1:
        return transformations[0]
    stages = [stage for tx in transformations for stage in ([tx] if tx.stages is None else tx.stages)]

    def init_fn(params: Params) -> tuple[State, ...]:
        return tuple(stage.init(params) for stage in stages)

    def update_fn(updates: Updates, state: State, params: Params | None = None, **extra: Any) -> tuple[Updates, State]:
        if type(state) is not tuple or len(state) != len(stages):
            raise TypeError(
                f"chain: state must be a tuple of {len(stages)} states, got {_parts(state)}. "
                "Pass the state that this chain's init or last update returned."
            )
        new_states = []
        for stage, old in zip(stages, state, strict=True):
            updates, new = stage.update(updates, old, params, **extra)
            new_states.append(new)
        return updates, tuple(new_states)

    inner = [Inner(stage, (index,)) for index, stage in enumerate(stages)]
    return GradientTransformation(init_fn, update_fn, inner=inner, as_stored=True, stages=stages, reach="element")


def _require_one_by_one(where: str, part: Any, call: str) -> None:
    if isinstance(part, (list, dict)):
        raise TypeError(f"{where}: expected its parts one by one, got a {type(part).__name__}. Write {call}.")


def _parts(state: State) -> str:
    return f"{len(state)}" if type(state) is tuple else type(state).__name__


@readable
def named_chain(*transformations: tuple[str, GradientTransformation]) -> GradientTransformation:
    """Apply transformations one after the other, and keep their states in a dict under their names.

    Args:
        transformations: Pairs of name and transformation, first to last.

    Example:
        >>> import mlx.core as mx
        >>> from mlxopt import clip, scale
        >>> tx = named_chain(("clip", clip(1.0)), ("step", scale(-0.1)))
        >>> list(tx.init({"w": mx.array(1.0)}))
        ['clip', 'step']
    """
    for pair in transformations:
        call = "named_chain(*dict.items())" if isinstance(pair, dict) else "named_chain(*list)"
        _require_one_by_one("named_chain", pair, call)
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
            raise TypeError(f"named_chain: every part must be a pair (name, transformation), got {pair!r}. Name it.")
        require_transformation("named_chain", pair[1])
    stages = dict(transformations)
    if len(stages) != len(transformations):
        names = [name for name, _ in transformations]
        raise ValueError(f"named_chain: names must differ, got {names}. Rename one of them.")

    def init_fn(params: Params) -> dict[str, State]:
        return {name: stage.init(params) for name, stage in stages.items()}

    def update_fn(updates: Updates, state: State, params: Params | None = None, **extra: Any) -> tuple[Updates, State]:
        _require_names("named_chain", state, stages)
        new_states = {}
        for name, stage in stages.items():
            updates, new_states[name] = stage.update(updates, state[name], params, **extra)
        return updates, new_states

    inner = [Inner(stage, (name,)) for name, stage in stages.items()]
    return GradientTransformation(init_fn, update_fn, inner=inner, as_stored=True, reach="element")


def _require_names(where: str, states: Any, names: Mapping[Any, Any]) -> None:
    if not isinstance(states, dict) or states.keys() != names.keys():
        got = list(states) if isinstance(states, dict) else type(states).__name__
        raise TypeError(
            f"{where}: state must be a dict with the keys {list(names)}, got {got}. "
            "Pass the state that this transformation's init or last update returned."
        )


# Each on its own leaves


class MaskedState(NamedTuple):
    """Memory of :func:`masked`."""

    inner_state: State  # has holes where leaves are left out


@readable
def masked(inner: GradientTransformation, mask: Mask, *, otherwise: Literal["pass", "zero"]) -> GradientTransformation:
    """Apply a transformation to some leaves only.

    Args:
        inner: Transformation of the chosen leaves; it sees holes in place of the others, and keeps no memory of them.
        mask: True for the chosen leaves: a function of path and parameter, or a tree of bools. Patterns that match no
            leaf are an error.
        otherwise: What becomes of the other updates: "pass" leaves them as they are, "zero" makes them zero.

    Example:
        >>> import mlx.core as mx
        >>> from mlxopt import by_path, scale
        >>> tx = masked(scale(-0.1), by_path("w"), otherwise="zero")
        >>> grads = {"w": mx.array(1.0), "b": mx.array(1.0)}
        >>> tx.update(grads, tx.init(grads))[0]
        {'w': array(-0.1, dtype=float32), 'b': array(0, dtype=float32)}
    """
    require_transformation("masked", inner)
    chosen = Choice.of("masked", "mask", mask)
    checks.choice("masked", "otherwise", otherwise, ("pass", "zero"))

    def init_fn(params: Params) -> MaskedState:
        _, kept = chosen.first(params).split(params)
        return MaskedState(inner.init(kept))

    def update_fn(
        updates: Updates, state: MaskedState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, MaskedState]:
        answers = chosen.again(updates, params)
        other, own = answers.split(updates)
        _, own_params = answers.split(params)
        changed, inner_state = inner.update(
            own, state.inner_state, own_params, **_shared(extra, inner, answers, params, 1)
        )
        left = other if otherwise == "pass" else tree.zeros_like(other)
        return answers.join([left, changed]), MaskedState(inner_state)

    part = Inner(inner, ("inner_state",), lambda params: chosen.again(params, params).split(params)[1])
    return GradientTransformation(init_fn, update_fn, inner=[part], as_stored=True, reach="leaf")


def _shared(
    extra: Mapping[str, Any], tx: GradientTransformation, answers: Answers, params: Params | None, index: int
) -> dict[str, Any]:
    """The extras for a transformation of some leaves; to its functions the other parameters stay where they are."""
    parts = answers.split(params)

    def back(own: Params) -> Params:
        return own if params is None else answers.join([*parts[:index], own, *parts[index + 1 :]])

    return told(extra, tx, lambda node: answers.split(node)[index], back)


class PartitionState(NamedTuple):
    """Memory of :func:`partition`."""

    inner_states: dict[Hashable, State]  # by label; each has holes at the leaves of the other labels


@readable
def partition(transforms: Mapping[Any, GradientTransformation], param_labels: Mask) -> GradientTransformation:
    """Give every leaf to the transformation of its label.

    Args:
        transforms: Transformation of each label.
        param_labels: Labels: a function of path and parameter, or a tree whose labels hold for all leaves below them.

    Example:
        >>> import mlx.core as mx
        >>> from mlxopt import adam, sgd
        >>> tx = partition({"matrix": adam(1e-3), "other": sgd(1e-2)},
        ...                lambda path, leaf: "matrix" if leaf.ndim == 2 else "other")
        >>> list(tx.init({"w": mx.zeros((2, 2)), "b": mx.zeros((2,))}).inner_states)
        ['matrix', 'other']
    """
    if not isinstance(transforms, Mapping):
        raise TypeError(f"partition: transforms must be a dict of transformations by label, got {transforms!r}.")
    for tx in transforms.values():
        require_transformation("partition", tx)
    for label in transforms:
        if label is None or isinstance(label, tuple):
            raise TypeError(
                f"partition: a label must be no tuple and not None, got {label!r}: in a tree of labels these are a "
                "container and a hole. Use a string."
            )
    transforms = dict(transforms)
    labelled = Choice.of("partition", "param_labels", param_labels, list(transforms))

    def init_fn(params: Params) -> PartitionState:
        parts = zip(transforms.items(), labelled.first(params).split(params), strict=True)
        return PartitionState({label: tx.init(part) for (label, tx), part in parts})

    def update_fn(
        updates: Updates, state: PartitionState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, PartitionState]:
        _require_names("partition", state.inner_states, transforms)
        answers = labelled.again(updates, params)
        parts, new_states = [], {}
        shares = zip(transforms.items(), answers.split(updates), answers.split(params), strict=True)
        for index, ((label, tx), own, own_params) in enumerate(shares):
            own_extra = _shared(extra, tx, answers, params, index)
            changed, new_states[label] = tx.update(own, state.inner_states[label], own_params, **own_extra)
            parts.append(changed)
        return answers.join(parts), PartitionState(new_states)

    def share(index: int) -> Callable[[Params], Params]:
        return lambda params: labelled.again(params, params).split(params)[index]

    inner = [Inner(tx, ("inner_states", label), share(i)) for i, (label, tx) in enumerate(transforms.items())]
    return GradientTransformation(init_fn, update_fn, inner=inner, as_stored=True, reach="leaf")


@readable
def freeze(mask: Mask) -> GradientTransformation:
    """Replace the updates of some leaves by zeros; put it last in a chain.

    Args:
        mask: True for the frozen leaves: a function of path and leaf, or a tree of bools. Patterns that match no leaf
            are an error.

    Example:
        >>> import mlx.core as mx
        >>> from mlxopt import by_path
        >>> tx = freeze(by_path("embedding.*"))
        >>> grads = {"embedding": {"weight": mx.array(1.0)}, "head": mx.array(1.0)}
        >>> tx.update(grads, tx.init(grads))[0]
        {'embedding': {'weight': array(0, dtype=float32)}, 'head': array(1, dtype=float32)}
    """
    return masked(set_to_zero(), Choice("freeze", "mask", mask), otherwise="pass")
