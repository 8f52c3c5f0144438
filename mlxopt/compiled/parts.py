"""What a transformation is made of."""

from mlxopt.base import GradientTransformation


def contains(tx: GradientTransformation, name: str) -> bool:
    """Say whether a transformation of a name is in another one, or is that.

    Args:
        tx: Transformation to look into.
        name: Name of a factory.

    Example:
        >>> from mlxopt import adam, clip, chain
        >>> contains(chain(clip(1.0), adam(0.1)), "clip")
        True
    """
    return tx.name == name or any(contains(part.tx, name) for part in tx.inner)
