"""Programs that all ranks of a group run together."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import mlx.core as mx

from mlxopt.base import GradientTransformation
from mlxopt.compiled.calling import compiled, random_key
from mlxopt.compiled.losses import Loss
from mlxopt.compiled.parts import contains
from mlxopt.distributed.agreement import Forms, common, forms_of, gathered, require_agreement
from mlxopt.distributed.exchange import Exchange
from mlxopt.distributed.line import LINE
from mlxopt.distributed.losses import LossOverRanks
from mlxopt.distributed.replicas import require_equal

OF_ONE_RANK = ("batch", "extra")
"""Arguments of programs whose form may differ from rank to rank."""

SAME = ("params", "state", "anchor", "outer_state")
"""Arguments of programs whose values must be the same on all ranks."""


class Ranks:
    """What compiled steps need of several ranks.

    Args:
        where: Function to name in errors.
        tx: The transformation, which must be the same on all ranks.
        group: Ranks, or how they exchange gradients.
        settings: What else must be the same on all ranks.
    """

    def __init__(
        self, where: str, tx: GradientTransformation, group: mx.distributed.Group | Exchange, **settings: Any
    ) -> None:
        self._where, self._tx = where, tx
        self._settings = {name: repr(value) for name, value in settings.items()}
        self._exchange = group if isinstance(group, Exchange) else Exchange(group)
        if contains(tx, "average_gradients"):
            raise ValueError(
                f"{where}: gradients must be averaged once, got a group and average_gradients() in the chain. Leave "
                f"the latter out; what it was told goes into {where}(..., group=Exchange(group, wire=...))."
            )
        self.mean = self._exchange.mean

    def loss(self, loss: Loss) -> LossOverRanks:
        """A loss function whose value and gradients are means over ranks."""
        return LossOverRanks(loss, self._exchange)

    def compiled(self, where: str, names: tuple[str, ...], program: Callable[..., Any]) -> Callable[..., Any]:
        """Compile a program that sends messages; at its first call ranks compare what they are about to do.

        Args:
            where: Function to name in errors.
            names: Names of the arguments of the program.
            program: Function of trees.
        """
        if self._exchange.size == 1:
            return compiled(where, names, program)
        agreed: list[Forms] = []

        def in_line(before: mx.array, *trees: Any) -> Any:
            if self._forms(names, trees) != agreed[0]:
                raise ValueError(
                    f"{where}: parameters and state must keep the form in which ranks compared them at the first call, "
                    "got another. Compile another step for them, on all ranks."
                )
            with LINE.within_program(before) as end:
                returned = program(*trees)
                return end(), returned

        run = compiled(where, ("before", *names), in_line)

        def call(*trees: Any) -> Any:
            is_first = not agreed
            if is_first:
                forms = self._forms(names, trees)
                require_agreement(where, self._exchange.group, forms)
                same = {name: node for name, node in zip(names, trees, strict=True) if name in SAME}
                require_equal(common(same), self._exchange.group)
                agreed.append(forms)
            # A copy, since MLX writes the next key into the array itself.
            key = random_key()[...] if is_first and "batch" in names else None
            last, returned = run(LINE.end(), *trees)
            LINE.go_on_after(last)
            if key is not None:
                self._warn_of_equal_draws(key)
            return returned

        return call

    def _forms(self, names: tuple[str, ...], trees: tuple[Any, ...]) -> Forms:
        shared = {name: node for name, node in zip(names, trees, strict=True) if name not in OF_ONE_RANK}
        spelled = re.sub(" at 0x[0-9a-f]+", "", repr(self._tx))
        same = {"the transformation": spelled, "the exchange": repr(self._exchange), **self._settings}
        return {**same, **forms_of(self._where, shared)}

    def _warn_of_equal_draws(self, before: mx.array) -> None:
        """Every rank finds the same, so that all gather or none does."""
        keys = gathered(self._exchange.group, mx.concatenate([before, random_key()]))
        if all(key == keys[0] and key[:2] != key[2:] for key in keys):
            warnings.warn(
                f"{self._where}: all ranks drew the same random numbers, so that dropout is the same on all of them. "
                "Call mx.random.seed(seed + group.rank()) when the parameters are made.",
                stacklevel=4,
            )
