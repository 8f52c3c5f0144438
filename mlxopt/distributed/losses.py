"""Loss functions of which each rank sees a part of the batch: the mean over ranks, and its gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx

from mlxopt import tree
from mlxopt.base import Params, Updates
from mlxopt.compiled.losses import Answer, Loss
from mlxopt.distributed.exchange import Exchange
from mlxopt.tree.structure import children, is_container, is_hole, rebuild


class Averaged(NamedTuple):
    """Marks what a loss function returns beside the loss and wants averaged over ranks, as the loss is.

    The step returns the mean in its place; on one process, what was marked.

    Example:
        >>> from mlxopt import compile_step, sgd
        >>> def loss_fn(params, x):
        ...     error = params["w"] - x
        ...     return mx.mean(mx.square(error)), {"error": Averaged(mx.mean(mx.abs(error)))}
        >>> tx, params = sgd(0.1), {"w": mx.array(1.0)}
        >>> step = compile_step(loss_fn, tx, has_aux=True, group=mx.distributed.init())
        >>> *_, aux = step(params, tx.init(params), mx.array([3.0, 5.0]))
        >>> aux
        {'error': array(3, dtype=float32)}
    """

    value: Any


class LossOverRanks:
    """A loss function whose value and gradients are means over ranks; each weighs the same, or as the loss says."""

    def __init__(self, loss: Loss, exchange: Exchange) -> None:
        self._loss, self._exchange = loss, exchange

    def __call__(self, params: Params, batch: tuple[Any, ...]) -> Answer:
        """Compute the loss, in a form whose gradients are means too."""

        @mx.custom_function
        def mean(*leaves: mx.array) -> mx.array:
            answer = self._loss(tree.with_leaves(params, leaves), batch)
            loss: mx.array = self._over_ranks(answer, None)[0].loss
            return loss

        @mean.vjp
        def gradients(leaves: Any, cotangent: mx.array, output: mx.array) -> Any:
            del output
            _, grads = self.value_and_grad(tree.with_leaves(params, leaves), batch)
            pairs = zip(tree.leaves(grads), leaves, strict=True)
            return [(cotangent * grad).astype(leaf.dtype) for grad, leaf in pairs]

        loss: Any = mean(*tree.leaves(params))
        return Answer(loss, None, ())

    def value_and_grad(self, params: Params, batch: tuple[Any, ...]) -> tuple[Answer, Updates]:
        """Compute the loss and its gradients."""
        return self._over_ranks(*self._loss.value_and_grad(params, batch))

    def _over_ranks(self, answer: Answer, grads: Updates) -> tuple[Answer, Updates]:
        grads, (loss, marked) = self._exchange.mean(grads, (answer.loss, _marked(answer.aux)), answer.weight)
        means = iter(marked)
        return Answer(loss, answer.weight, _each_marked(answer.aux, lambda _: next(means))), grads


def _marked(node: Any) -> list[Any]:
    found: list[Any] = []
    _each_marked(node, found.append)
    return found


def _each_marked(node: Any, f: Callable[[Any], Any]) -> Any:
    """A tree with something else in the place of each mark and what it marks."""
    if isinstance(node, Averaged):
        return f(node.value)
    if not is_container(node) or is_hole(node):
        return node
    return rebuild(node, [_each_marked(part, f) for _, part in children(node)])
