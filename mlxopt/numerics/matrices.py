"""Functions of matrices: of the last two axes of an array, over which the others are a stack."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import mlx.core as mx

from mlxopt import checks
from mlxopt.numerics.dtypes import widen

Coefficients = tuple[float, float, float]
"""``a, b, c`` of one step ``x <- a x + (b g + c g g) x`` with ``g = x x'``."""

NsCoeffs = str | Sequence[float] | Sequence[Sequence[float]]
"""Name of a preset, three numbers for every step, or three numbers for each; the last of these go on."""

Preconditioning = Literal["frobenius", "schatten", "aol"]

PRESETS: dict[str, list[Coefficients]] = {
    "standard": [(3.4445, -4.7750, 2.0315)],
    "dion": [
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ],
    "polar_express": [
        # As in modded-nanogpt, which divides by 1.02 first to be safe from rounding.
        (8.156554524902461 / 1.02, -22.48329292557795 / 1.02**3, 15.878769915207462 / 1.02**5),
        (4.042929935166739, -2.808917465908714, 0.5000178451051316),
        (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
        (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
        (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
        (1.875, -1.25, 0.375),
    ],
}


def newton_schulz(
    x: mx.array,
    ns_coeffs: NsCoeffs = "standard",
    ns_steps: int = 5,
    eps: float = 1e-8,
    preconditioning: Preconditioning = "frobenius",
) -> mx.array:
    """Bring the singular values of matrices near 1, by matrix products only.

    Those that are much smaller than the largest come nearer with every step: five steps are enough for about a
    hundredth of it. Many steps also raise what rounding has put in place of those that are zero.

    Args:
        x: Matrix, or stack of matrices in the last two axes; float32, float16 or bfloat16.
        ns_coeffs: "standard" (ends between 0.7 and 1.2), "dion" or "polar_express" (closer to 1),
            three numbers ``a, b, c``, or three numbers for each step, of which the last ones go on.
        ns_steps: Number of steps.
        eps: Added to the norm by which the matrix is divided first.
        preconditioning: How singular values are brought below 1 first: divide by the "frobenius" norm, by the
            "schatten" norm of order 4, which is nearer to the largest of them, or every row by its own bound ("aol").

    Example:
        >>> x = mx.array([[3.0, 0.0], [0.0, 4.0]])
        >>> mx.linalg.norm(newton_schulz(x, "polar_express", 8) - mx.eye(2)).item() < 0.05
        True

    Reference:
        Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; Amsel et al., "The Polar
        Express", 2025, arXiv:2505.16932; Boissin et al., "Turbo-Muon", 2025, arXiv:2512.04632.
    """
    rows = coefficients("newton_schulz", ns_coeffs, ns_steps)
    checks.non_negative("newton_schulz", eps=eps)
    checks.choice("newton_schulz", "preconditioning", preconditioning, get_args(Preconditioning))
    if x.ndim < 2 or not mx.issubdtype(x.dtype, mx.floating):
        raise ValueError(
            f"newton_schulz: x must be real matrices, got {x.dtype} of shape {x.shape}. Choose the leaves that are."
        )
    return iterated(x, rows, eps, preconditioning, x.dtype) if x.size else x


def iterated(
    x: mx.array, rows: list[Coefficients], eps: float, preconditioning: Preconditioning, dtype: mx.Dtype
) -> mx.array:
    """Scale matrices in float32, and iterate in another dtype."""
    is_tall = x.shape[-2] > x.shape[-1]
    start = _bounded(_of_norm_1(widen(x), eps), is_tall, preconditioning).astype(dtype)
    # From twice as long as high on the products of the short side save a third; in low precision they lose too much.
    is_long = max(x.shape[-2:]) >= 2 * min(x.shape[-2:]) and dtype == mx.float32
    result = (_iterate_gram if is_long else _iterate)(start, rows).astype(x.dtype)
    return _transposed(result) if is_tall else result


def coefficients(where: str, ns_coeffs: NsCoeffs, ns_steps: int) -> list[Coefficients]:
    """Spell out the coefficients of every step, and raise unless they are well formed."""
    checks.whole(where, low=1, ns_steps=ns_steps)
    if isinstance(ns_coeffs, str):
        checks.choice(where, "ns_coeffs", ns_coeffs, list(PRESETS))
        rows: list[Any] = PRESETS[ns_coeffs][:ns_steps]
    else:
        given = list(ns_coeffs)
        rows = given if all(isinstance(row, Sequence) for row in given) else [given]
    if not rows or any(len(row) != 3 for row in rows) or len(rows) > ns_steps:
        raise ValueError(
            f"{where}: ns_coeffs must be three numbers, or three for each of at most {ns_steps} steps, "
            f"got {ns_coeffs!r}. Pass a preset, or raise ns_steps."
        )
    for row in rows:
        checks.number(where, **{f"ns_coeffs {name}": value for name, value in zip("abc", row, strict=True)})
    return [*rows, *[rows[-1]] * (ns_steps - len(rows))]


def _transposed(x: mx.array) -> mx.array:
    return mx.swapaxes(x, -1, -2)


def _of_norm_1(x: mx.array, eps: float) -> mx.array:
    largest = _or_one(mx.max(mx.abs(x), axis=(-2, -1), keepdims=True))
    x = x / largest  # whose squares neither overflow nor vanish
    return x / _or_one(mx.sqrt(mx.sum(mx.square(x), axis=(-2, -1), keepdims=True)) + eps / largest)


def _bounded(x: mx.array, is_tall: bool, preconditioning: Preconditioning) -> mx.array:
    """Scale matrices of norm 1 so that no singular value is above 1, and turn those that are tall.

    Whole matrices are scaled before: MLX lays out one matrix and a stack in different ways behind that, and the order
    of a sum decides on its last bits.
    """
    wide = _transposed(x) if is_tall else x
    if preconditioning == "frobenius":
        return wide
    gram = wide @ _transposed(wide)
    if preconditioning == "aol":
        return wide * mx.rsqrt(_or_one(mx.sum(mx.abs(gram), axis=-1, keepdims=True)))
    x = x * mx.rsqrt(_or_one(mx.sqrt(mx.sum(mx.square(gram), axis=(-2, -1), keepdims=True))))
    return _transposed(x) if is_tall else x


def _or_one(x: mx.array) -> mx.array:
    """A divisor, 1 where it would be 0."""
    return mx.where(x == 0, 1.0, x)


def _iterate(x: mx.array, rows: list[Coefficients]) -> mx.array:
    for a, b, c in rows:
        gram = x @ _transposed(x)
        x = mx.addmm(x, mx.addmm(gram, gram, gram, alpha=c, beta=b), x, beta=a)
    return x


def _iterate_gram(x: mx.array, rows: list[Coefficients]) -> mx.array:
    """The same iteration on ``x x'``, which is cheaper where that is small.

    Every step multiplies ``x`` by a polynomial of ``x x'``; the products gather in a factor. A new start after two or
    three steps keeps rounding errors from growing.
    """
    identity = mx.eye(x.shape[-2], dtype=x.dtype)
    while rows:
        length = 2 if len(rows) % 3 else 3
        stretch, rows = rows[:length], rows[length:]
        gram, factor = x @ _transposed(x), identity
        for index, (a, b, c) in enumerate(stretch):
            power = mx.addmm(gram, gram, gram, alpha=c, beta=b) + a * identity
            factor = power if index == 0 else power @ factor
            if index < len(stretch) - 1:
                gram = power @ gram @ power
        x = factor @ x
    return x


def solve_upper(r: mx.array, b: mx.array, *, transposed: bool = False) -> mx.array:
    """Solve ``r x = b``, or ``r' x = b``, for an upper triangular matrix.

    Example:
        >>> solve_upper(mx.array([[2.0, 1.0], [0.0, 4.0]]), mx.array([1.0, 2.0]))
        array([0.25, 0.5], dtype=float32)
    """
    # MLX has it on the CPU only.
    return mx.linalg.solve_triangular(r.T if transposed else r, b, upper=not transposed, stream=mx.cpu)


def singular_directions(x: mx.array, rank: int, side: Literal["left", "right"]) -> mx.array:
    """Find the first left or right singular vectors of a matrix, as the columns of another one.

    From its products with itself, so that those of singular values below a thousandth of the largest are not exact. All
    vectors are orthonormal, also where singular values are zero. Computed on the CPU.

    Args:
        x: Matrix; what is not finite counts as zero.
        rank: Number of vectors, at most that of rows and of columns.
        side: Which vectors.

    Example:
        >>> mx.abs(singular_directions(mx.array([[0.0, 3.0], [0.1, 0.0]]), 1, "left")).tolist()
        [[1.0], [0.0]]
    """
    finite = mx.where(mx.isfinite(x), x, 0.0)
    x = finite / _or_one(mx.max(mx.abs(finite)))
    is_tall = x.shape[0] >= x.shape[1]
    _, vectors = mx.linalg.eigh(x.T @ x if is_tall else x @ x.T, stream=mx.cpu)
    first = vectors[:, ::-1][:, :rank]
    if is_tall == (side == "right"):
        return first
    return mx.linalg.qr(x.T @ first if side == "right" else x @ first, stream=mx.cpu)[0]
