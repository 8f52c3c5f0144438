"""Steps that each rank takes alone, and one of all together after every few."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Params, State, require_transformation
from mlxopt.compiled.step import traced_on_streams
from mlxopt.distributed.exchange import Exchange
from mlxopt.distributed.ranks import Ranks
from mlxopt.numerics.dtypes import widen
from mlxopt.optimizers.sgd import sgd
from mlxopt.tree.structure import MaskedNode
from mlxopt.update import in_place_of
from mlxopt.wrappers.averaging import remembered
from mlxopt.wrappers.outer import outer_update


class LocalStepsState(NamedTuple):
    """What ranks remember of the last time they met."""

    step: mx.array  # int32: steps since then
    anchor: Params  # parameters after it, float32 for low precision
    outer_state: State

    def eval_params(self, params: Params) -> Params:
        return in_place_of(params, self.anchor)


class LocalSteps:
    """Ranks that meet after every few steps; :func:`local_steps` makes one."""

    def __init__(
        self, every: int, outer: GradientTransformation, group: mx.distributed.Group | Exchange | None
    ) -> None:
        self._every, self._outer = every, outer
        self._ranks = Ranks("local_steps", outer, group or Exchange(), every=every)
        self._meet = self._ranks.compiled("local_steps", ("arrived", "anchor", "outer_state"), self._program)

    def init(self, params: Params) -> LocalStepsState:
        """Set out from parameters that are the same on all ranks, by :func:`replicate`.

        Args:
            params: Tree of parameters.
        """
        with tree.naming("local_steps"):
            anchor = tree.map(remembered, params)
        return LocalStepsState(mx.array(0), anchor, self._outer.init(anchor))

    def __call__(self, params: Params, state: LocalStepsState) -> tuple[Params, LocalStepsState]:
        """Count a step that was taken, and meet the other ranks if it is time.

        Args:
            params: Parameters that the step has made.
            state: What ``init`` or the last call returned.
        """
        if not isinstance(state, LocalStepsState):
            raise TypeError(
                f"local_steps: state must be a LocalStepsState, got {type(state).__name__}. Pass what init(params) or "
                "the last call returned."
            )
        step = int(state.step) + 1
        if step < self._every:
            return params, state._replace(step=mx.array(step))
        met, anchor, outer_state = self._meet(params, state.anchor, state.outer_state)
        return met, LocalStepsState(mx.array(0), anchor, outer_state)

    def _program(self, arrived: Params, anchor: Params, outer_state: State) -> tuple[Params, Params, State]:
        with tree.naming("local_steps: params do not fit the state"):
            back = tree.map(_way_back, arrived, anchor, holes=True)
        mean, _ = self._ranks.mean(back)
        with traced_on_streams(arrived):
            new_anchor, new_state = outer_update(self._outer, anchor, mean, outer_state)
        return in_place_of(arrived, new_anchor), new_anchor, new_state


def _way_back(param: mx.array, anchor: mx.array | None) -> mx.array | MaskedNode:
    return MaskedNode() if anchor is None else anchor - widen(param)


def local_steps(
    every: int,
    outer: GradientTransformation | None = None,
    group: mx.distributed.Group | Exchange | None = None,
) -> LocalSteps:
    r"""Let each rank take its own steps, and after every few make one step of all together.

    .. math:: \bar w \leftarrow \text{outer} \left( \bar w, \; \frac{1}{N} \sum_n (\bar w - w_n) \right), \qquad
        w_n \leftarrow \bar w

    where :math:`w_n` is where rank *n* has arrived from :math:`\bar w`: for networks that are slow or far, as it sends
    1/every of what averaged gradients take. The steps between are those of a plain ``compile_step``, without a group,
    and what its optimizer remembers stays on each rank. :func:`eval_params` gives :math:`\bar w`. The loop is that of
    one process with a line more::

        local = local_steps(30, group=group)
        met = local.init(params)
        for batch in batches:
            params, state, loss = step(params, state, *batch)
            params, met = local(params, met)

    Args:
        every: Steps of a rank for one of all.
        outer: Whole optimizer of common steps, by default ``sgd(0.7, momentum=0.9, nesterov=True)``. With ``sgd(1.0)``
            parameters are averaged.
        group: Ranks, or how they exchange what they have walked; all that the launcher started by default.

    Returns:
        A ``LocalSteps``: ``init(params) -> state``, and called as ``(params, state) -> (params, state)``.

    Example:
        >>> local = local_steps(2, sgd(0.5))
        >>> params = {"w": mx.array(1.0)}
        >>> met = local.init(params)
        >>> for _ in range(2):
        ...     params = {"w": params["w"] + 2.0}
        ...     params, met = local(params, met)
        >>> params
        {'w': array(3, dtype=float32)}

    Reference:
        Douillard et al., "DiLoCo: Distributed Low-Communication Training of Language Models", 2023, arXiv:2311.08105.
    """
    checks.whole("local_steps", low=1, every=every)
    if outer is None:
        outer = sgd(0.7, momentum=0.9, nesterov=True)
    require_transformation("local_steps", outer)
    return LocalSteps(every, outer, group or Exchange())
