"""Making matrices orthogonal."""

import math
from collections.abc import Callable
from typing import Any, get_args

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import EmptyState, GradientTransformation, Mask, Params, Updates
from mlxopt.numerics.matrices import NsCoeffs, Preconditioning, coefficients, iterated
from mlxopt.readable import readable
from mlxopt.tree.choice import Choice


def _is_matrix(leaf: mx.array) -> bool:
    return leaf.ndim > 1 and leaf.size > 0


def _shape_of_matrices(leaf: mx.array, is_stack: bool) -> tuple[int, int, int]:
    """How many matrices a leaf is, their rows and columns; by default one, of the first axis by the others."""
    rows, columns = leaf.shape[-2:] if is_stack else (leaf.shape[0], leaf.size // leaf.shape[0])
    return leaf.size // (rows * columns), rows, columns


def _of_matrices(where: str, stacked: Mask | None, change: Callable[[Updates, Any], Updates]) -> GradientTransformation:
    """A transformation without memory, from a function of the updates and of which of them are stacks."""
    stacks = Choice(where, "stacked", False if stacked is None else stacked)

    def init_fn(params: Params) -> EmptyState:
        stacks.first(params)
        return EmptyState()

    def update_fn(updates: Updates, state: EmptyState, params: Params | None = None) -> tuple[Updates, EmptyState]:
        return change(updates, stacks.again(updates, params).values), state

    return GradientTransformation(init_fn, update_fn, reach="leaf")


@readable
def orthogonalize(
    ns_coeffs: NsCoeffs = "standard",
    ns_steps: int = 5,
    eps: float = 1e-8,
    *,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    stacked: Mask | None = None,
    dtype: mx.Dtype | None = None,
) -> GradientTransformation:
    """Replace every matrix by the nearest one with orthogonal rows or columns, approximately; vectors and scalars pass.

    A leaf with more than two axes, such as a convolution kernel, is a matrix of its first axis by all others. Matrices
    of one shape go through the Newton-Schulz iteration together.

    Args:
        ns_coeffs: Preset ("standard", "dion", "polar_express") or coefficients, as for ``newton_schulz``.
        ns_steps: Steps of the iteration.
        eps: Added to the norm by which a matrix is divided first.
        adaptive: Multiply each result by its inner product with the matrix, which is about the sum of singular values.
        preconditioning: "frobenius", "schatten" or "aol", as for ``newton_schulz``.
        stacked: Leaves that are stacks of matrices in their last two axes, such as the weights of experts: a function
            of path and leaf, or a tree of bools; none by default.
        dtype: Dtype of the matrix products; float32 by default. bfloat16 is faster on a GPU.

    Example:
        >>> tx = orthogonalize("polar_express", 8)
        >>> updates, _ = tx.update({"w": mx.array([[3.0, 0.0], [0.0, 0.1]])}, tx.init({"w": mx.zeros((2, 2))}))
        >>> mx.linalg.norm(updates["w"] - mx.eye(2)).item() < 0.05
        True

    Reference:
        Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
    """
    rows = coefficients("orthogonalize", ns_coeffs, ns_steps)
    checks.non_negative("orthogonalize", eps=eps)
    checks.choice("orthogonalize", "preconditioning", preconditioning, get_args(Preconditioning))
    checks.floating("orthogonalize", dtype=dtype)

    def orthogonal(x: mx.array) -> mx.array:
        result = iterated(x, rows, eps, preconditioning, dtype or x.dtype)
        return mx.sum(x * result, axis=(-2, -1), keepdims=True) * result if adaptive else result

    def as_matrices(u: mx.array, is_stack: bool) -> mx.array | tree.MaskedNode:
        if not _is_matrix(u):
            return tree.MaskedNode()
        if not mx.issubdtype(u.dtype, mx.floating):
            raise tree.TreeError(f"a {u.dtype} matrix cannot be made orthogonal. Leave it out with masked")
        return u.reshape(_shape_of_matrices(u, is_stack))

    def change(updates: Updates, is_stack: Any) -> Updates:
        results = tree.map_stacked(orthogonal, tree.map(as_matrices, updates, is_stack))
        return tree.map(lambda u, x: u if x is None else x.reshape(u.shape), updates, results, holes=True)

    return _of_matrices("orthogonalize", stacked, change)


@readable
def scale_by_shape(consistent_rms: float | None = None, *, stacked: Mask | None = None) -> GradientTransformation:
    """Multiply matrices by a number that makes one learning rate fit matrices of all shapes; vectors and scalars pass.

    ``sqrt(max(1, rows / columns))``, rows being the outputs, for orthogonal matrices that change outputs by as much
    whatever their shape; or ``consistent_rms * sqrt(max(rows, columns))``, for elements of one size.

    Args:
        consistent_rms: Root mean square of the result, if the matrix is orthogonal; 0.2 is that of Adam's steps.
        stacked: Leaves that are stacks of matrices in their last two axes: a function of path and leaf, or a tree of
            bools; none by default.

    Example:
        >>> tx = scale_by_shape()
        >>> tx.update({"w": mx.ones((4, 1))}, tx.init({"w": mx.zeros((4, 1))}))[0]["w"].tolist()
        [[2.0], [2.0], [2.0], [2.0]]

    Reference:
        Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; Liu et al., "Muon is Scalable
        for LLM Training", 2025, arXiv:2502.16982.
    """
    if consistent_rms is not None:
        checks.positive("scale_by_shape", consistent_rms=consistent_rms)

    def scaled(u: mx.array, is_stack: bool) -> mx.array:
        if not _is_matrix(u):
            return u
        _, rows, columns = _shape_of_matrices(u, is_stack)
        if consistent_rms is None:
            return u if rows <= columns else math.sqrt(rows / columns) * u
        return consistent_rms * math.sqrt(max(rows, columns)) * u

    return _of_matrices("scale_by_shape", stacked, lambda updates, is_stack: tree.map(scaled, updates, is_stack))
