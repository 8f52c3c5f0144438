"""Steps made of the gradients of several micro-batches, which are gathered outside of the optimizer."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import mlx.core as mx

from mlxopt import tree
from mlxopt.base import GradientTransformation, Params, State, Updates, require_transformation
from mlxopt.compiled.calling import as_arrays, compiled
from mlxopt.compiled.losses import Loss
from mlxopt.compiled.ranks import Alone, ranks_of
from mlxopt.compiled.step import Donate, advance, require_donate, traced_on_streams
from mlxopt.numerics.scalars import new_count, safe_increment, unless_zero

if TYPE_CHECKING:
    from mlxopt.distributed.exchange import Exchange
    from mlxopt.distributed.ranks import Ranks


class AccumulationState(NamedTuple):
    """What the micro-batches since the last step have left."""

    micro_steps: mx.array  # int32: micro-batches gathered
    weight: mx.array  # float32: their weights, added
    value: mx.array  # float32: the mean of their losses
    grads: Updates  # the mean of their gradients, float32 for low precision


class Accumulation:
    """A step made of several micro-batches; :func:`compile_accumulation` makes one.

    Called with the micro-batches of a step it makes the step. A loop that has them one by one, or that must be able to
    stop between two of them, calls ``init``, ``add`` and ``apply``: what is gathered is a tree of arrays, to be saved
    and loaded like any other.
    """

    def __init__(
        self, loss: Loss, tx: GradientTransformation, has_aux: bool, ranks: "Alone | Ranks", donate: Donate
    ) -> None:
        self._loss, self._tx, self._ranks, self._has_aux, self._donate = loss, tx, ranks, has_aux, donate
        self._add = compiled("Accumulation.add", ("params", "gathered", "batch"), self._program_of_add)
        self._apply = ranks.compiled(
            "Accumulation.apply", ("params", "state", "gathered", "extra"), self._program_of_apply
        )

    def init(self, params: Params) -> AccumulationState:
        """Begin with nothing gathered.

        Args:
            params: Tree of parameters.
        """
        with tree.naming("Accumulation.init"):
            return AccumulationState(new_count(), mx.zeros(()), mx.zeros(()), tree.memory_like(params))

    def add(self, params: Params, gathered: AccumulationState, *batch: Any) -> Any:
        """Gather the gradients of a micro-batch; returns what is gathered then, and ``aux`` if there is one.

        Args:
            params: Tree of parameters.
            gathered: What ``init`` or the last ``add`` returned.
            batch: Arguments of the loss function behind the parameters.
        """
        _require_gathered("add", gathered)
        added, aux = self._add(params, gathered, batch)
        return (added, *aux) if self._has_aux else added

    def apply(
        self, params: Params, state: State, gathered: AccumulationState, **extra: Any
    ) -> tuple[Params, State, mx.array]:
        """Make one step of what is gathered; returns new parameters, the next state and the mean loss.

        Args:
            params: Tree of parameters, as they were when the gradients were gathered.
            state: State of the transformation.
            gathered: What the last ``add`` returned. Begin the next step with ``init(params)``.
            extra: Extra arguments of the transformation; it gets ``value`` and ``grad``, the means, anyway.
        """
        _require_gathered("apply", gathered)
        advanced: tuple[Params, State, mx.array] = self._apply(
            params, state, gathered, as_arrays("Accumulation.apply", extra)
        )
        return advanced

    def __call__(self, params: Params, state: State, micro_batches: Iterable[Any], **extra: Any) -> tuple[Any, ...]:
        """Make one step of some micro-batches; returns parameters, state, mean loss, and a list of ``aux`` if any.

        Args:
            params: Tree of parameters.
            state: State of the transformation.
            micro_batches: Micro-batches, any number of them and of any size: each is the tuple of what the loss
                function takes behind the parameters, or the one thing that it takes.
            extra: Extra arguments of the transformation.
        """
        gathered, aux = self.init(params), []
        for batch in micro_batches:
            added = self.add(params, gathered, *(batch if isinstance(batch, tuple) else (batch,)))
            gathered = added[0] if self._has_aux else added
            aux += [added[1]] if self._has_aux else []
            # At once, for MLX is lazy: otherwise the memory of all micro-batches is in use at the same time.
            mx.eval(added)
            del added
        if not gathered.micro_steps.item():
            raise ValueError("Accumulation: a step needs at least one micro-batch, got none. End the epoch before it.")
        advanced = self.apply(params, state, gathered, **extra)
        return (*advanced, aux) if self._has_aux else advanced

    def _program_of_add(
        self, params: Params, gathered: AccumulationState, batch: tuple[Any, ...]
    ) -> tuple[AccumulationState, tuple[Any, ...]]:
        answer, grads = self._loss.value_and_grad(params, batch)
        weight = mx.array(_size(batch)) if answer.weight is None else answer.weight.astype(mx.float32)
        total = gathered.weight + weight
        share = unless_zero(total, weight / total)

        def towards(new: mx.array, mean: mx.array) -> mx.array:
            moved = mean + (new.astype(mean.dtype) - mean) * share
            # What weighs nothing may be a mean over nothing, and so NaN.
            return moved if answer.weight is None else mx.where(weight == 0, mean, moved)

        with traced_on_streams(params), tree.naming("Accumulation.add: gathered does not fit params"):
            means = tree.map(towards, grads, gathered.grads)
        value = towards(answer.loss, gathered.value)
        return AccumulationState(safe_increment(gathered.micro_steps), total, value, means), answer.aux

    def _program_of_apply(
        self, params: Params, state: State, gathered: AccumulationState, extra: Mapping[str, Any]
    ) -> tuple[Params, State, mx.array]:
        grads, value = self._ranks.mean(gathered.grads, gathered.value, gathered.weight)
        advanced = advance(self._tx, grads, state, params, {"value": value, "grad": grads, **extra}, self._donate)
        return *advanced, value


def compile_accumulation(
    loss_fn: Callable[..., Any],
    tx: GradientTransformation,
    *,
    has_aux: bool = False,
    weighted: bool = False,
    group: "mx.distributed.Group | Exchange | None" = None,
    donate: Donate = "auto",
) -> Accumulation:
    """Compile a step made of several micro-batches: a gradient and an addition for each of them, and one update.

    The memory is that of one micro-batch and of one float32 copy of the gradients. Loss and gradients are means. Each
    micro-batch weighs as much as its arrays are long (their first axis), or what the loss says it is a mean over.

    Args:
        loss_fn: Function ``(params, *batch) -> loss``.
        tx: The transformation. It gets ``value`` and ``grad``, but no ``value_fn``: no one batch stands for all.
        has_aux: ``loss_fn`` returns a tree of anything else, last.
        weighted: ``loss_fn`` returns ``(loss, weight)``, where the weight is what the loss is a mean over, such as the
            number of tokens.
        group: Ranks that make the step together, each with its own micro-batches, by ``mx.distributed.init()``. They
            exchange gradients once a step, and each counts by the weight that it has gathered.
        donate: As for :func:`compile_update`.

    Returns:
        An ``Accumulation``: called as ``(params, state, micro_batches, **extra) -> (params, state, loss)``, or step by
        step by its ``init(params)``, ``add(params, gathered, *batch)`` and ``apply(params, state, gathered)``.

    Example:
        >>> from mlxopt import sgd
        >>> tx = sgd(0.25)
        >>> step = compile_accumulation(lambda params, x: mx.mean(mx.square(params["w"] - x)), tx)
        >>> params = {"w": mx.array(1.0)}
        >>> params, state, loss = step(params, tx.init(params), [mx.array([3.0, 3.0]), mx.array([0.0])])
        >>> params, loss
        ({'w': array(1.5, dtype=float32)}, array(3, dtype=float32))
    """
    require_transformation("compile_accumulation", tx)
    require_donate("compile_accumulation", donate)
    loss = Loss("compile_accumulation", loss_fn, has_aux=has_aux, weighted=weighted)
    return Accumulation(loss, tx, has_aux, ranks_of("compile_accumulation", tx, group), donate)


def _size(batch: tuple[Any, ...]) -> float:
    sizes = {leaf.shape[0] for leaf in tree.leaves(batch) if isinstance(leaf, mx.array) and leaf.ndim}
    if len(sizes) > 1:
        raise ValueError(
            f"Accumulation.add: the arrays of a micro-batch must have one length, its weight, got {sorted(sizes)}. "
            "Pass weighted=True, and return (loss, weight) from loss_fn."
        )
    return float(*sizes) if sizes else 1.0


def _require_gathered(method: str, gathered: Any) -> None:
    if not isinstance(gathered, AccumulationState):
        raise TypeError(
            f"Accumulation.{method}: gathered must be an AccumulationState, got {type(gathered).__name__}. "
            "Pass what init(params) or the last add(...) returned."
        )
