"""Dtypes of arrays."""

import mlx.core as mx

LOW_PRECISION = (mx.float16, mx.bfloat16)

LARGEST_FLOAT = mx.finfo(mx.float32).max


def widen(x: mx.array) -> mx.array:
    """Bring float16 and bfloat16 to float32; leave every other dtype.

    Args:
        x: Array.

    Example:
        >>> widen(mx.zeros((2,), mx.bfloat16)).dtype, widen(mx.array(1)).dtype
        (mlx.core.float32, mlx.core.int32)
    """
    return x.astype(mx.float32) if x.dtype in LOW_PRECISION else x


def floating(x: mx.array) -> mx.array:
    """Bring everything that is not float32 or complex64 to float32."""
    wide = widen(x)
    return wide if mx.issubdtype(wide.dtype, mx.inexact) else wide.astype(mx.float32)
