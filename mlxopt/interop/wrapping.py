"""A transformation in the manners of an optimizer of MLX."""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from mlxopt import tree
from mlxopt.base import GradientTransformation, State, require_transformation
from mlxopt.interop.optimizers.base import Optimizer
from mlxopt.interop.optimizers.layout import at, ordered_like, parameters_of, trainable
from mlxopt.numerics.dtypes import widen
from mlxopt.numerics.scalars import as_scalar
from mlxopt.tree.structure import children, is_container, is_record, kind, rebuild
from mlxopt.update import apply_updates

ENTRY = "transformation"
"""Where the state of the transformation stands in the state of the optimizer."""


def as_optimizer(tx: GradientTransformation) -> "TransformationOptimizer":
    """Give a transformation the manners of an optimizer of MLX.

    Its state is one dict with ``step`` and ``transformation``; in there, fields and positions of the transformation's
    state are keys, so that ``mlx.utils.tree_flatten`` gives readable names, and what ``tree_unflatten`` makes of them
    may be assigned again.

    Args:
        tx: The transformation. Extra arguments that it needs are given to ``update`` by name. Its state is made for one
            set of parameters: gradients and later calls of ``init`` must be of the same.

    Example:
        >>> from mlxopt import sgd
        >>> optimizer = as_optimizer(sgd(0.25))
        >>> model = {"w": mx.array(1.0)}
        >>> optimizer.update(model, {"w": mx.array(2.0)})
        >>> model, optimizer.step, optimizer.learning_rate
        ({'w': array(0.5, dtype=float32)}, array(1, dtype=uint64), array(0.25, dtype=float32))
    """
    require_transformation("as_optimizer", tx)
    return TransformationOptimizer(tx)


class TransformationOptimizer(Optimizer):
    """What :func:`as_optimizer` makes: a transformation with the methods of an optimizer of MLX.

    Args:
        tx: The transformation.
    """

    def __init__(self, tx: GradientTransformation) -> None:
        super().__init__()
        self._tx = tx
        self._form: State = None
        self._early_rate: mx.array | None = None

    def __repr__(self) -> str:
        return f"as_optimizer({self._tx!r})"

    def init(self, parameters: Any) -> None:
        """Make the state, or fit one that was assigned to these parameters.

        Args:
            parameters: Tree of parameters; of a module, those that are trainable.
        """
        parameters = trainable(parameters)
        fresh = self._tx.init(parameters)
        form = tree.map(lambda leaf: _Form(leaf.shape, str(leaf.dtype)), fresh)
        self._keep(_fitted(form, self._state) if ENTRY in self._state else fresh)
        self._state["step"] = mx.array(self._state["step"]).astype(mx.uint64)
        self._form = form
        self._initialized = True
        if self._early_rate is not None:
            self.learning_rate, self._early_rate = self._early_rate, None

    def update(self, model: Any, gradients: Any, **extra: Any) -> None:
        """Move the parameters of a model, or of a dict.

        Args:
            model: Module or dict of parameters, which may hold more than there are gradients.
            gradients: Tree of gradients.
            extra: Extra arguments of the transformation, such as ``value``.
        """
        model.update(self.apply_gradients(gradients, model, **extra))

    def apply_gradients(self, gradients: Any, parameters: Any, **extra: Any) -> Any:
        """Return the parameters that follow from gradients, in the structure of the gradients.

        Args:
            gradients: Tree of gradients.
            parameters: Tree of parameters, which may hold more than there are gradients.
            extra: Extra arguments of the transformation, such as ``value``.
        """
        with tree.naming("as_optimizer"):
            params = parameters_of(gradients, parameters)
        if not self._initialized:
            self.init(params)
        updates, state = self._tx.update(tree.map(widen, gradients), _fitted(self._form, self._state), params, **extra)
        self._state["step"] = self.step + 1
        self._keep(state)
        return apply_updates(params, updates)

    @property
    def learning_rate(self) -> mx.array:
        """First learning rate in the state; one that is set is set for all, and schedules overrule it."""
        rate: mx.array = next(iter(self._rates().values()))
        return rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: float | mx.array) -> None:
        rates = dict.fromkeys(self._rates(), as_scalar(learning_rate))
        if self._has_state:
            self._keep(tree.set(_fitted(self._form, self._state), rates))
        else:
            self._early_rate = as_scalar(learning_rate)

    def _require_state(self, state: Any) -> None:
        super()._require_state(state)
        if "step" not in state or state.keys() - {"step", ENTRY}:
            raise KeyError(
                f"as_optimizer: the state must have the keys ['step', {ENTRY!r}], got {list(state)}. "
                "Assign one that an optimizer of the same transformation had."
            )
        if self._form is not None:
            _fitted(self._form, state)
        self._early_rate = None  # what is assigned later counts

    @property
    def _has_state(self) -> bool:
        """Whether there is a state, and a form to read it by."""
        return self._form is not None and ENTRY in self._state

    def _rates(self) -> dict[str, Any]:
        """The learning rates in the state; before there is one, those that it will begin with."""
        state = _fitted(self._form, self._state) if self._has_state else self._state.get(ENTRY) or self._beginning()
        rates = tree.get_all(state, "learning_rate")
        if not rates:
            raise KeyError(
                f"as_optimizer: the state must hold a learning_rate, got none from {self._tx!r}. "
                "Put scale_by_learning_rate into the chain."
            )
        return rates if self._has_state or self._early_rate is None else dict.fromkeys(rates, self._early_rate)

    def _beginning(self) -> State:
        """The state on no parameters at all, which has the same scalars."""
        try:
            return self._tx.init({})
        except tree.TreeError:  # a mask or labels that are a tree
            raise KeyError(
                "as_optimizer: there must be a state to find the learning_rate in, got none yet. "
                "Call init(model.trainable_parameters()) first."
            ) from None

    def _keep(self, state: State) -> None:
        self._state[ENTRY] = ordered_like(_encoded(state), self._state.get(ENTRY))


@dataclass(frozen=True)
class _Form:
    """Shape and dtype of a leaf of the state."""

    shape: tuple[int, ...]
    dtype: str


def _fitted(form: Any, state: dict[Any, Any]) -> State:
    """The state of a transformation inside that of its optimizer."""
    with tree.naming("as_optimizer: the state does not fit"):
        return _decoded(form, state.get(ENTRY))


def _encoded(node: Any) -> Any:
    """The state as dicts and lists, which may change and have names."""
    if tree.is_hole(node):
        return {}
    if not is_container(node):
        return node
    parts = {str(key): _encoded(part) for key, part in children(node)}
    return parts if isinstance(node, dict) or is_record(node) else list(parts.values())


def _decoded(form: Any, node: Any) -> Any:
    """The state in its own form again, from dicts and lists in which empty parts may be missing."""
    if tree.is_hole(form):
        return form
    if not is_container(form):
        if not isinstance(node, mx.array) or (node.shape, str(node.dtype)) != (form.shape, form.dtype):
            got = f"{node.dtype} of shape {node.shape}" if isinstance(node, mx.array) else kind(node)
            raise tree.TreeError(
                f"expected {form.dtype} of shape {form.shape}, got {got}. Assign the state of the same transformation "
                "and parameters"
            )
        return node
    given = node.items() if isinstance(node, dict) else enumerate(node) if is_container(node) else ()
    names = dict.fromkeys(str(key) for key, _ in children(form))
    unexpected = [str(key) for key, part in given if str(key) not in names and tree.leaves(part)]
    if unexpected or not (node is None or is_container(node)):
        raise tree.TreeError(f"expected the parts {list(names)}, got {unexpected or kind(node)}")
    parts = []
    for key, part in children(form):
        try:
            parts.append(_decoded(part, at(node, key)))
        except tree.TreeError as error:
            raise error.under(key) from None
    return rebuild(form, parts)
