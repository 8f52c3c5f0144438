"""Removing the mean of an update."""

import mlx.core as mx

from mlxopt.base import GradientTransformation, stateless_with_tree_map
from mlxopt.readable import readable


@readable
def centralize() -> GradientTransformation:
    """Subtract from the weights of every output unit (first axis) their mean; vectors and scalars pass.

    Example:
        >>> tx = centralize()
        >>> tx.update({"w": mx.array([[1.0, 3.0], [5.0, 5.0]])}, tx.init({"w": mx.zeros((2, 2))}))[0]
        {'w': array([[-1, 1],
               [0, 0]], dtype=float32)}

    Reference:
        Yong et al., "Gradient Centralization: A New Optimization Technique for Deep Neural Networks", 2020,
        arXiv:2004.01461.
    """

    def centered(u: mx.array) -> mx.array:
        return u - mx.mean(u, axis=tuple(range(1, u.ndim)), keepdims=True) if u.ndim > 1 and u.size else u

    return stateless_with_tree_map(lambda u, p: centered(u))
