"""The door to the distributed room, which loads when a program is to run on several ranks."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from mlxopt.base import GradientTransformation
from mlxopt.compiled.calling import compiled
from mlxopt.compiled.losses import Loss
from mlxopt.compiled.parts import contains

if TYPE_CHECKING:
    from mlxopt.distributed.exchange import Exchange
    from mlxopt.distributed.ranks import Ranks


class Alone:
    """One process, which has nobody to exchange anything with."""

    def loss(self, loss: Loss) -> Loss:
        """The loss function as it is."""
        return loss

    def mean(self, rough: Any, exact: Any = None, weight: mx.array | None = None) -> tuple[Any, Any]:
        """What the only rank has."""
        del weight
        return rough, exact

    def compiled(self, where: str, names: tuple[str, ...], program: Callable[..., Any]) -> Callable[..., Any]:
        """The compiled program."""
        return compiled(where, names, program)


def ranks_of(
    where: str, tx: GradientTransformation, group: "mx.distributed.Group | Exchange | None"
) -> "Alone | Ranks":
    """Who makes a step together.

    Args:
        where: Function to name in errors.
        tx: The transformation.
        group: Ranks, how they exchange gradients, or ``None`` for this process alone.
    """
    if group is None:
        takes_gradients = where != "compile_update"
        if takes_gradients and contains(tx, "shard") and not contains(tx, "average_gradients"):
            _require_one_rank(where)
        return Alone()
    from mlxopt.distributed.ranks import Ranks

    return Ranks(where, tx, group)


def _require_one_rank(where: str) -> None:
    size = mx.distributed.init().size()
    if size > 1:
        raise ValueError(
            f"{where}: each rank would update its share by its own gradients, got shard(...) on {size} ranks and no "
            f"group. Pass {where}(..., group=group), or put average_gradients(group) first in the chain."
        )
