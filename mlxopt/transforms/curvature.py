"""Estimates of the diagonal of the Hessian, in place of gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx

from mlxopt import tree
from mlxopt.base import GradientTransformation, Params, Updates
from mlxopt.readable import readable
from mlxopt.signatures import keywords_of
from mlxopt.tree.gradients import value_and_grad
from mlxopt.tree.random import first_key


class DiagHessianState(NamedTuple):
    """Memory of the estimators of the diagonal of the Hessian."""

    rng_key: mx.array  # key that the next estimate is drawn with


@readable
def hutchinson_estimator_diag_hessian(key: int | mx.array) -> GradientTransformation:
    """Replace updates by an unbiased estimate of the diagonal of the Hessian: random signs times its product with them.

    ``update`` needs the loss as a function of the parameters, ``value_fn``, which ``compile_step`` gives it. It costs
    about two gradients.

    Args:
        key: Seed, or a key from ``mx.random.key``.

    Example:
        >>> tx = hutchinson_estimator_diag_hessian(key=0)
        >>> params = {"w": mx.array([1.0, 2.0])}
        >>> loss = lambda params: mx.sum(params["w"]**3)
        >>> tx.update(params, tx.init(params), params, value_fn=loss)[0]
        {'w': array([6, 12], dtype=float32)}

    Reference:
        Hutchinson, "A Stochastic Estimator of the Trace of the Influence Matrix for Laplacian Smoothing Splines", 1990.
    """
    seed = first_key("hutchinson_estimator_diag_hessian", key)

    def init_fn(params: Params) -> DiagHessianState:
        del params
        return DiagHessianState(seed)

    def update_fn(
        updates: Updates, state: DiagHessianState, params: Params, *, value_fn: Callable[[Params], mx.array]
    ) -> tuple[Updates, DiagHessianState]:
        del updates
        next_key, own_key = mx.random.split(state.rng_key)
        signs = tree.random_like(own_key, params, _signs)
        return tree.mul(signs, _hessian_times(signs, value_fn, params)), DiagHessianState(next_key)

    return GradientTransformation(init_fn, update_fn)


def _signs(shape: tuple[int, ...], dtype: mx.Dtype, key: mx.array) -> mx.array:
    return 2 * mx.random.bernoulli(shape=shape, key=key).astype(dtype) - 1


def _hessian_times(vector: Updates, value_fn: Callable[[Params], mx.array], params: Params) -> Updates:
    def gradient(*leaves: mx.array) -> list[mx.array]:
        return tree.leaves(value_and_grad(value_fn, tree.with_leaves(params, leaves))[1])

    if not tree.leaves(params):
        return vector
    _, products = mx.jvp(gradient, tree.leaves(params), tree.leaves(vector))
    return tree.with_leaves(params, products)


@readable
def gauss_newton_estimator_diag_hessian(
    sampled_loss_fn: Callable[..., tuple[mx.array, mx.array]], key: int | mx.array
) -> GradientTransformation:
    """Replace updates by an estimate of the Gauss-Newton diagonal: squared gradients for labels that the model draws.

    This is the Gauss-Newton-Bartlett estimator, for losses that are minus the log of a probability, such as cross
    entropy. It costs one gradient, and is never negative.

    Args:
        sampled_loss_fn: Function ``(params, key, *, ...) -> (loss, weight)``: the mean loss for labels drawn from what
            the model predicts, and what it is a mean over, such as the number of tokens. The keyword-only arguments,
            such as the inputs of the model, become extra arguments of ``update``.
        key: Seed, or a key from ``mx.random.key``.

    Example:
        >>> def sampled_loss_fn(params, key, *, inputs):
        ...     logits = inputs @ params["w"]
        ...     labels = mx.stop_gradient(mx.random.categorical(logits, key=key))
        ...     return mx.mean(mx.logsumexp(logits, -1) - logits[mx.arange(len(labels)), labels]), mx.array(len(labels))
        >>> tx = gauss_newton_estimator_diag_hessian(sampled_loss_fn, key=0)
        >>> params = {"w": mx.zeros((1, 2))}
        >>> tx.update(params, tx.init(params), params, inputs=mx.array([[2.0]]))[0]
        {'w': array([[1, 1]], dtype=float32)}

    Reference:
        Liu et al., "Sophia: A Scalable Stochastic Second-order Optimizer for Language Model Pre-training", 2024,
        arXiv:2305.14342.
    """
    where = "gauss_newton_estimator_diag_hessian"
    if not callable(sampled_loss_fn):
        raise TypeError(
            f"{where}: sampled_loss_fn must be a function, got {sampled_loss_fn!r}. "
            "Pass sampled_loss_fn(params, key, *, inputs), say."
        )
    seed, (asked, required) = first_key(where, key), keywords_of(sampled_loss_fn)

    def init_fn(params: Params) -> DiagHessianState:
        del params
        return DiagHessianState(seed)

    def update_fn(
        updates: Updates, state: DiagHessianState, params: Params, **extra: Any
    ) -> tuple[Updates, DiagHessianState]:
        del updates
        for missing in sorted(required - extra.keys()):
            raise TypeError(
                f"{where}: sampled_loss_fn needs the extra argument '{missing}'. Call update(..., {missing}=...)."
            )
        next_key, own_key = mx.random.split(state.rng_key)
        given = {name: extra[name] for name in asked & extra.keys()}
        if not tree.leaves(params):
            return params, DiagHessianState(next_key)
        (_, weight), found = value_and_grad(lambda at: sampled_loss_fn(at, own_key, **given), params)
        squares = tree.map(lambda g: weight * mx.square(g), found)
        return squares, DiagHessianState(next_key)

    return GradientTransformation(init_fn, update_fn, inner=[], extras=asked)
