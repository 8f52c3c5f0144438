"""Several optimizers, each for parameters of its own."""

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx

from mlxopt import tree
from mlxopt.interop.optimizers.base import Optimizer
from mlxopt.interop.optimizers.layout import parameters_of, trainable
from mlxopt.tree.structure import children, is_container, is_record

Filter = Callable[[str, mx.array], bool]


class MultiOptimizer(Optimizer):
    """An optimizer that gives every parameter to the first optimizer whose filter takes it.

    Filters are asked about parameters, at every update too. The result has the key order of the gradients.

    Args:
        optimizers: The optimizers; the last one takes what no filter takes.
        filters: A function of path and parameter for each optimizer but the last.

    Example:
        >>> from mlxopt.interop.optimizers import SGD, Lion
        >>> optimizer = MultiOptimizer([Lion(0.5), SGD(0.25)], [lambda path, parameter: parameter.ndim == 2])
        >>> parameters = {"w": mx.zeros((1, 1)), "b": mx.zeros((1,))}
        >>> optimizer.apply_gradients({"w": mx.array([[8.0]]), "b": mx.array([8.0])}, parameters)
        {'w': array([[-0.5]], dtype=float32), 'b': array([-2], dtype=float32)}
    """

    def __init__(self, optimizers: Sequence[Any], filters: Sequence[Filter] = ()) -> None:
        if not optimizers or len(filters) != len(optimizers) - 1:
            raise ValueError(
                f"MultiOptimizer: filters must be one fewer than optimizers, got {len(filters)} for {len(optimizers)}. "
                "The last optimizer takes what no filter takes."
            )
        super().__init__()
        self._state = {"states": []}
        self.optimizers = list(optimizers)
        self.filters = list(filters)

    def init(self, parameters: Any) -> None:
        """Make room in the states for every parameter that has none yet.

        Args:
            parameters: Tree of parameters; of a module, those that are trainable.
        """
        parameters = trainable(parameters)
        for optimizer, part in zip(self.optimizers, self._parts(parameters, parameters), strict=True):
            optimizer.init(part)

    def apply_gradients(self, gradients: Any, parameters: Any) -> Any:
        """Return the parameters that follow from gradients, in the structure of the gradients.

        Args:
            gradients: Tree of gradients.
            parameters: Tree of parameters, which may hold more than there are gradients.
        """
        moved: dict[str, mx.array] = {}
        for optimizer, part in zip(self.optimizers, self._parts(gradients, parameters), strict=True):
            moved.update(tree.items(optimizer.apply_gradients(part, parameters)))
        return tree.map_with_path(lambda path, _: moved[path], gradients)

    @property
    def state(self) -> dict[Any, Any]:
        """A dict of the list of the states; states that are assigned are copied into it."""
        self._state["states"] = [optimizer.state for optimizer in self.optimizers]
        return self._state

    @state.setter
    def state(self, state: dict[Any, Any]) -> None:
        states = state.get("states") if isinstance(state, dict) else None
        if not isinstance(states, (list, tuple)) or len(states) != len(self.optimizers):
            raise ValueError(
                f"MultiOptimizer: state must be a dict with {len(self.optimizers)} 'states', got {state!r}. "
                "Pass one that a MultiOptimizer of as many optimizers had."
            )
        for optimizer, own in zip(self.optimizers, list(states), strict=True):
            optimizer.state = own

    @property
    def step(self) -> mx.array:
        """Updates made so far."""
        step: mx.array = self.optimizers[0].step
        return step

    @property
    def learning_rate(self) -> mx.array:
        """Learning rate of the first optimizer; one that is set is set for all."""
        rate: mx.array = self.optimizers[0].learning_rate
        return rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: float | mx.array) -> None:
        for optimizer in self.optimizers:
            optimizer.learning_rate = learning_rate

    def _parts(self, gradients: Any, parameters: Any) -> list[Any]:
        """Share out the gradients: one tree for each optimizer, in which nothing is left of the others."""
        if len(self.optimizers) == 1:
            return [gradients]
        with tree.naming("MultiOptimizer"):
            chosen = parameters_of(gradients, parameters)
        takers = {path: self._taker(path, parameter) for path, parameter in tree.items(chosen)}
        return [_pruned(gradients, "", takers, taker) or {} for taker in range(len(self.optimizers))]

    def _taker(self, path: str, parameter: mx.array) -> int:
        taken = (index for index, takes in enumerate(self.filters) if takes(path, parameter))
        return next(taken, len(self.filters))


def _pruned(node: Any, path: str, takers: dict[str, int], taker: int) -> Any:
    """What one optimizer gets of a tree, or None; in a list, empty dicts keep the positions of the others."""
    if tree.is_hole(node):
        return None
    if not is_container(node):
        return node if takers[path] == taker else None
    parts = {
        key: kept
        for key, part in children(node)
        if (kept := _pruned(part, f"{path}.{key}" if path else str(key), takers, taker)) is not None
    }
    if not parts:
        return None
    if isinstance(node, (list, tuple)) and not is_record(node):
        return [parts.get(index, {}) for index in range(max(parts) + 1)]
    return parts
