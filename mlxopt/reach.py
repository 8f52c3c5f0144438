"""How far an update looks from the element that it changes: what decides how parameters may be shared out."""

from collections.abc import Collection, Iterable
from typing import Literal, get_args

Reach = Literal["element", "leaf", "tree"]
"""Nothing but the element itself, its own leaf, or all leaves."""

OF_PARAMETERS = ("value_fn", "obj_fn", "grad_fn")
"""Extra arguments that are functions of all parameters; the last returns their gradient."""

NEAREST_FIRST: tuple[Reach, ...] = get_args(Reach)


def reach_of(declared: Reach, asked: Collection[str], handed_on: Collection[str], inner: Iterable[Reach]) -> Reach:
    """How far a transformation looks: as far as it says, as what it asks for, and as those inside.

    Args:
        declared: How far its own functions look.
        asked: Extra arguments that its update names; of ``grad`` it sees what it sees of the updates.
        handed_on: Extra arguments that its update hands on to another function, which sees all of them.
        inner: How far the transformations inside look.

    Example:
        >>> reach_of("element", ["value"], [], ["element", "leaf"]), reach_of("element", ["value_fn"], [], [])
        ('leaf', 'tree')
    """
    if declared not in NEAREST_FIRST:
        raise ValueError(
            f"GradientTransformation: reach must be one of {[*NEAREST_FIRST]}, got {declared!r}. Pick one of them."
        )
    sees_all = any(name in OF_PARAMETERS for name in asked) or any(
        name == "grad" or name in OF_PARAMETERS for name in handed_on
    )
    return max([declared, "tree" if sees_all else declared, *inner], key=NEAREST_FIRST.index)
