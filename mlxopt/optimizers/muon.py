"""Muon: momentum made orthogonal, matrix by matrix."""

import re

import mlx.core as mx

from mlxopt import checks
from mlxopt.base import GradientTransformation, Mask, ScalarOrSchedule, require_transformation
from mlxopt.combine import chain, partition
from mlxopt.numerics.matrices import NsCoeffs, Preconditioning
from mlxopt.optimizers.adam import scale_by_adam
from mlxopt.readable import readable
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.momentum import ema
from mlxopt.transforms.orthogonalization import orthogonalize, scale_by_shape
from mlxopt.transforms.scaling import scale_by_learning_rate
from mlxopt.tree.choice import Choice

OUTER_LAYER = re.compile(r".*embed.*|(.*_)?emb|wte|wpe|(.*_)?head|classifier", re.IGNORECASE)
"""Names of layers whose matrices are tables of vectors, one for each token, position or class."""


def is_hidden_matrix(path: str, leaf: mx.array) -> bool:
    """Say whether a parameter is a matrix (or a kernel) of a hidden layer, which Muon is for.

    These are leaves of at least two axes, except where a layer is named as an embedding or a head: one that contains
    "embed", is "wte", "wpe" or "classifier", or is or ends with "emb" or "head". Such a table holds one vector for each
    token or class, and is no map between hidden spaces. Where layers are named otherwise, choose them yourself.

    Args:
        path: Dotted name of the parameter.
        leaf: The parameter.

    Example:
        >>> is_hidden_matrix("layers.0.mlp.up.weight", mx.zeros((8, 4)))
        True
        >>> is_hidden_matrix("model.embed_tokens.weight", mx.zeros((100, 4)))
        False
    """
    return leaf.ndim >= 2 and not any(OUTER_LAYER.fullmatch(part) for part in path.split("."))


@readable
def scale_by_muon(
    ns_coeffs: NsCoeffs = "standard",
    ns_steps: int = 5,
    beta: float = 0.95,
    eps: float = 1e-8,
    mu_dtype: mx.Dtype | None = None,
    *,
    nesterov: bool = True,
    bias_correction: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    stacked: Mask | None = None,
    dtype: mx.Dtype | None = None,
) -> GradientTransformation:
    """Replace updates by their running mean, and make its matrices orthogonal.

    Args:
        ns_coeffs: Preset ("standard", "dion", "polar_express") or coefficients of the iteration, as for
            ``newton_schulz``.
        ns_steps: Steps of the iteration.
        beta: Decay of the mean.
        eps: Added to the norm by which a matrix is divided first.
        mu_dtype: Dtype of the mean; float32 by default.
        nesterov: Let the mean look one step ahead.
        bias_correction: Make up for the start at zero. It matters to the weights of mean and newest update if
            ``nesterov``, and to vectors; false is the rule of the authors.
        adaptive: Multiply each matrix by its inner product with the mean.
        preconditioning: "frobenius", "schatten" or "aol", as for ``newton_schulz``.
        stacked: Leaves that are stacks of matrices: a function of path and leaf, or a tree of bools.
        dtype: Dtype of the matrix products; float32 by default.

    Example:
        >>> scale_by_muon(ns_steps=6)
        scale_by_muon(ns_coeffs='standard', ns_steps=6, beta=0.95, eps=1e-08, nesterov=True, bias_correction=True,
            preconditioning='frobenius')

    Reference:
        Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
    """
    checks.decay_rate("scale_by_muon", beta=beta)
    checks.floating("scale_by_muon", mu_dtype=mu_dtype)
    return chain(
        ema(beta, bias_correction, mu_dtype, nesterov=nesterov),
        orthogonalize(
            ns_coeffs, ns_steps, eps, adaptive=adaptive, preconditioning=preconditioning, stacked=stacked, dtype=dtype
        ),
    )


@readable
def muon(
    learning_rate: ScalarOrSchedule,
    ns_coeffs: NsCoeffs = "standard",
    ns_steps: int = 5,
    beta: float = 0.95,
    eps: float = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    mu_dtype: mx.Dtype | None = None,
    *,
    nesterov: bool = True,
    bias_correction: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    consistent_rms: float | None = None,
    matrices: Mask = is_hidden_matrix,
    stacked: Mask | None = None,
    otherwise: GradientTransformation | None = None,
    dtype: mx.Dtype | None = None,
) -> GradientTransformation:
    r"""Step by the orthogonal matrix nearest to the mean gradient; leave what is no hidden matrix to another optimizer.

    .. math:: m \leftarrow \beta m + (1 - \beta) g, \qquad U \Sigma V^\top = m, \qquad
        w \leftarrow w - \eta \left( \sqrt{\max(1, \text{rows} / \text{columns})} \, U V^\top + \lambda w \right)

    Matrices are in MLX's layout, outputs first. Convolution kernels count as matrices of their first axis by all
    others; embeddings, output heads, vectors and scalars go to ``otherwise``. Made for training from scratch:
    fine-tuning a model that Adam has trained tends to come out worse than with Adam.

    Args:
        learning_rate: Number or schedule.
        ns_coeffs: Preset ("standard", "dion", "polar_express") or coefficients of the iteration, as for
            ``newton_schulz``.
        ns_steps: Steps of the iteration.
        beta: Decay of the mean.
        eps: Added to the norm by which a matrix is divided first.
        weight_decay: Number or schedule, for the matrices; multiplied by the learning rate.
        mask: Matrices that decay: a function of path and leaf, or a tree of bools; all by default.
        mu_dtype: Dtype of the mean; float32 by default.
        nesterov: Let the mean look one step ahead.
        bias_correction: Make up for the start at zero; false is the rule of the authors.
        adaptive: Multiply each orthogonal matrix by its inner product with the mean.
        preconditioning: "frobenius", "schatten" or "aol", as for ``newton_schulz``.
        consistent_rms: Make the elements of all steps of this size instead, times the learning rate; 0.2 allows for
            Adam's learning rates.
        matrices: Leaves to which this applies: a function of path and leaf, or a tree of bools.
        stacked: Leaves that are stacks of matrices, such as the weights of experts: a function of path and leaf, or a
            tree of bools.
        otherwise: Optimizer of the other leaves; NAdam with the same learning rate by default.
        dtype: Dtype of the matrix products; float32 by default.

    Example:
        >>> from mlxopt import adam
        >>> tx = muon(0.02, otherwise=adam(1e-3))
        >>> params = {"hidden": {"weight": mx.ones((4, 4)), "bias": mx.ones((4,))}}
        >>> list(tx.init(params).inner_states)
        ['otherwise', 'muon']

    Reference:
        Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; Liu et al., "Muon is Scalable
        for LLM Training", 2025, arXiv:2502.16982.
    """
    which = Choice("muon", "matrices", matrices)
    if otherwise is None:
        otherwise = chain(
            scale_by_adam(eps=eps, mu_dtype=mu_dtype, nesterov=nesterov), scale_by_learning_rate(learning_rate)
        )
    require_transformation("muon", otherwise)
    by_muon = chain(
        scale_by_muon(
            ns_coeffs,
            ns_steps,
            beta,
            eps,
            mu_dtype,
            nesterov=nesterov,
            bias_correction=bias_correction,
            adaptive=adaptive,
            preconditioning=preconditioning,
            stacked=stacked,
            dtype=dtype,
        ),
        scale_by_shape(consistent_rms, stacked=stacked),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
    return partition({"otherwise": otherwise, "muon": by_muon}, which)
