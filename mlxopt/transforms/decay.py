"""Weight decay."""

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import EmptyState, GradientTransformation, Mask, Params, ScalarOrSchedule, Updates, identity
from mlxopt.combine import masked
from mlxopt.hyperparameters import inject_hyperparams
from mlxopt.readable import readable
from mlxopt.tree.choice import Choice


@readable
def add_decayed_weights(weight_decay: ScalarOrSchedule = 0.0, mask: Mask | None = None) -> GradientTransformation:
    """Add ``weight_decay`` times the parameter to its update.

    Before ``scale_by_learning_rate`` this is decoupled weight decay, at the start of a chain it is an L2 penalty.

    Args:
        weight_decay: Number or schedule.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default. Patterns that match
            no leaf are an error.

    Example:
        >>> tx = add_decayed_weights(0.1)
        >>> params = {"w": mx.array(2.0)}
        >>> tx.update({"w": mx.array(1.0)}, tx.init(params), params)[0]
        {'w': array(1.2, dtype=float32)}

    Reference:
        Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019, arXiv:1711.05101.
    """
    checks.scalar_or_schedule("add_decayed_weights", low=0.0, weight_decay=weight_decay)

    def decayed(weight_decay: float) -> GradientTransformation:
        def update_fn(updates: Updates, state: EmptyState, params: Params) -> tuple[Updates, EmptyState]:
            return tree.add_scale(updates, weight_decay, params), state

        return GradientTransformation(identity().init, update_fn, reach="element")

    everywhere = inject_hyperparams(decayed)(weight_decay)
    everywhere = everywhere.spelled("add_decayed_weights", lambda: "add_decayed_weights(...)")
    if mask is None:
        return everywhere
    return masked(everywhere, Choice("add_decayed_weights", "mask", mask), otherwise="pass")


def shrunk(steps: Updates, share: float | mx.array, params: Params, decaying: Choice) -> Updates:
    """Take a share of the parameters from the steps of those that decay."""
    decays = decaying.again(params, params).values
    return tree.map(lambda step, p, is_chosen: step - share * p if is_chosen else step, steps, params, decays)


def which_decay(where: str, mask: Mask | None) -> Choice:
    """The leaves that decay; all of them if there is no mask."""
    return Choice.of(where, "mask", True if mask is None else mask)
