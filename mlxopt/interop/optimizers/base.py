"""What all optimizers of this room share: the live state, and the manners of ``mlx.optimizers.Optimizer``."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import mlx.core as mx

from mlxopt import tree
from mlxopt.base import GradientTransformation, State
from mlxopt.interop.optimizers.layout import Memory, Place, mirrored, ordered_like, parameters_of, places, trainable
from mlxopt.numerics.dtypes import widen
from mlxopt.numerics.scalars import as_scalar
from mlxopt.tree.structure import children, is_container, is_record, rebuild
from mlxopt.update import apply_updates


class Optimizer:
    """An optimizer that keeps its state in itself; subclass it to write one parameter by parameter.

    ``state`` is one dict for the life of the optimizer, which a compiled function may capture. A subclass says in
    ``init_single`` what it remembers of a parameter, and in ``apply_single`` how the parameter moves.

    Args:
        schedulers: Schedules by the name of the entry of the state which they set before every update.

    Example:
        >>> class Heavy(Optimizer):
        ...     def __init__(self, learning_rate):
        ...         super().__init__()
        ...         self._maybe_schedule("learning_rate", learning_rate)
        ...     def init_single(self, parameter, state):
        ...         state["v"] = mx.zeros_like(parameter)
        ...     def apply_single(self, gradient, parameter, state):
        ...         state["v"] = 0.9 * state["v"] + gradient
        ...         return parameter - self.learning_rate * state["v"]
        >>> optimizer = Heavy(0.5)
        >>> optimizer.apply_gradients({"w": mx.array(1.0)}, {"w": mx.array(2.0)})
        {'w': array(1.5, dtype=float32)}
    """

    def __init__(self, schedulers: Mapping[str, Callable[[Any], Any]] | None = None) -> None:
        self._initialized = False
        self._state: dict[Any, Any] = {"step": mx.array(0, mx.uint64)}
        self._schedulers = dict(schedulers or {})

    def update(self, model: Any, gradients: Any) -> None:
        """Move the parameters of a model, or of a dict.

        Args:
            model: Module or dict of parameters, which may hold more than there are gradients.
            gradients: Tree of gradients.
        """
        model.update(self.apply_gradients(gradients, model))

    def init(self, parameters: Any) -> None:
        """Make room in the state for every parameter that has none yet.

        The first update does it by itself; do it before to see or to restore the state earlier.

        Args:
            parameters: Tree of parameters; of a module, those that are trainable.
        """
        parameters = trainable(parameters)
        if not isinstance(parameters, dict):
            raise TypeError(f"{self._name}: parameters must be a dict, got {parameters!r}. Put them into one.")
        if "step" not in self._state:
            raise KeyError(f"{self._name}: the state must have a 'step', got {list(self._state)}. Load a whole state.")
        self._state["step"] = mx.array(self._state["step"]).astype(mx.uint64)
        with tree.naming(self._name):
            mirrored(parameters, self._state, self._prepare)
        self._initialized = True

    def init_single(self, parameter: mx.array, state: Memory) -> None:
        """Put what is remembered of one parameter into a dict of its own.

        Args:
            parameter: The parameter.
            state: Empty dict.
        """
        raise NotImplementedError(f"{self._name}: init_single must be written. Put arrays into the dict it is given.")

    def apply_gradients(self, gradients: Any, parameters: Any) -> Any:
        """Return the parameters that follow from gradients, in the structure of the gradients.

        Args:
            gradients: Tree of gradients.
            parameters: Tree of parameters, which may hold more than there are gradients.
        """
        with tree.naming(self._name):
            chosen = parameters_of(gradients, parameters)
        if not self._initialized:
            self.init(chosen)
        before = {name: self._state[name] for name in ("step", *self._schedulers) if name in self._state}
        count = self.step.astype(mx.int32)
        try:
            for name, schedule in self._schedulers.items():
                self._state[name] = _as_array(schedule(count))
            self._state["step"] = self.step + 1
            with tree.naming(self._name):
                moved = self._apply(list(places(gradients, chosen, self._state)))
        except BaseException:
            self._state.update(before)
            raise
        return tree.with_leaves(gradients, moved)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: Memory) -> mx.array:
        """Return one parameter after the update, and write its memory.

        Args:
            gradient: Its gradient.
            parameter: The parameter.
            state: Its memory, to be changed in place.
        """
        raise NotImplementedError(f"{self._name}: apply_single must be written. Return the new parameter.")

    @property
    def state(self) -> dict[Any, Any]:
        """The live dict; what is assigned is copied into it, and a program that has captured it goes on with that."""
        return self._state

    @state.setter
    def state(self, state: dict[Any, Any]) -> None:
        self._require_state(state)
        given = ordered_like(state, self._state)
        self._state.clear()
        self._state.update(given)
        self._initialized = False

    @property
    def step(self) -> mx.array:
        """Updates made so far."""
        return _as_array(self.state["step"]).astype(mx.uint64)

    @property
    def learning_rate(self) -> mx.array:
        """Learning rate of the last update; a constant one may be set, and a schedule overrules it."""
        if "learning_rate" not in self.state:
            raise KeyError(f"{self._name}: the state holds no learning_rate, got {list(self.state)}. Pass or set one.")
        rate: mx.array = self.state["learning_rate"]
        return rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: float | mx.array) -> None:
        if callable(learning_rate):
            raise TypeError(
                f"{self._name}: learning_rate must be set to a number, got {learning_rate!r}. For a schedule build a "
                "new optimizer with it, and assign the old state: new.state = old.state."
            )
        self.state["learning_rate"] = as_scalar(learning_rate)

    def _maybe_schedule(self, name: str, param: float | mx.array | Callable[[Any], Any]) -> None:
        """Keep a hyperparameter in the state: a number, or what a schedule says before every update."""
        if callable(param):
            self._schedulers[name] = param
            self.state[name] = _as_array(param(self.step.astype(mx.int32)))
        else:
            self.state[name] = _as_array(param)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _require_state(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise TypeError(f"{self._name}: state must be a dict, got {state!r}. Assign one that an optimizer had.")

    def _prepare(self, parameter: mx.array, memory: Memory) -> None:
        if not memory:
            self.init_single(parameter, memory)

    def _apply(self, places: list[Place]) -> list[mx.array]:
        return [self.apply_single(place.gradient, place.parameter, place.memory) for place in places]


def _as_array(value: Any) -> mx.array:
    return value if isinstance(value, mx.array) else mx.array(value)


class Transformed(Optimizer):
    """An optimizer that is a transformation: a subclass names it, and the fields of its state.

    Example:
        >>> from mlxopt import chain, scale_by_learning_rate, scale_by_lion
        >>> class Signs(Transformed):
        ...     memory = {"m": "mu"}
        ...     def transformation(self):
        ...         return chain(scale_by_lion(), scale_by_learning_rate(1.0))
        >>> optimizer = Signs()
        >>> optimizer.learning_rate = 0.25
        >>> optimizer.apply_gradients({"w": mx.array(7.0)}, {"w": mx.array(1.0)})
        {'w': array(0.75, dtype=float32)}
        >>> list(optimizer.state["w"])
        ['m']
    """

    memory: ClassVar[dict[str, str]] = {}
    """Field of the transformation's state by the name that MLX has for it in the memory of a parameter."""

    def transformation(self) -> GradientTransformation:
        """Build the transformation from the attributes as they are; its learning rate is read from the state."""
        raise NotImplementedError(f"{self._name}: transformation must be written. Return a transformation.")

    def init_single(self, parameter: mx.array, state: Memory) -> None:
        """Put what is remembered of one parameter into a dict of its own: float32 for low precision.

        Args:
            parameter: The parameter.
            state: Empty dict.
        """
        state.update({name: tree.memory_like(parameter) for name in self.memory})

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: Memory) -> mx.array:
        """Return one parameter after the update, and write its memory.

        Args:
            gradient: Its gradient.
            parameter: The parameter.
            state: Its memory, changed in place.
        """
        return self._advance([Place("", gradient, parameter, state)])[0]

    def _prepare(self, parameter: mx.array, memory: Memory) -> None:
        fresh: Memory = {}
        self.init_single(parameter, fresh)
        if not memory:
            memory.update(fresh)
        for name, value in fresh.items():
            if name not in memory:
                raise tree.TreeError(
                    f"the state must hold {list(fresh)}, got {list(memory)}. Load the state of the same optimizer"
                )
            tree.require_same_shape(memory[name], value)

    def _apply(self, places: list[Place]) -> list[mx.array]:
        if type(self).apply_single is Transformed.apply_single:
            return self._advance(places)
        return super()._apply(places)

    def _advance(self, places: list[Place]) -> list[mx.array]:
        """Let the transformation work on all places at once, on dicts by path."""
        tx = self.transformation()
        known = {"count": self.step.astype(mx.int32) - 1, "learning_rate": self._rate()}
        fields = {field: self._gathered(places, name) for name, field in self.memory.items()}
        state = _filled(tx.init({}), {**fields, **known})
        gradients = {place.path: widen(place.gradient) for place in places}
        parameters = {place.path: place.parameter for place in places}
        if len(gradients) < len(places):
            raise tree.TreeError(f"dotted paths must differ, got {[place.path for place in places]}")
        updates, state = tx.update(gradients, state, parameters)
        moved = apply_updates(parameters, updates)
        new = fields_of(state)
        for name, field in self.memory.items():
            for place in places:
                if field in new and name in place.memory:
                    place.memory[name] = new[field][place.path]
        return list(moved.values())

    def _rate(self) -> mx.array:
        return as_scalar(self.learning_rate)

    def _gathered(self, places: list[Place], name: str) -> dict[str, Any]:
        """One kind of memory of all places, with holes where a place has none of that kind."""
        return {
            place.path: widen(place.memory[name]) if name in place.memory else tree.MaskedNode() for place in places
        }


def _filled(state: State, known: Mapping[str, Any]) -> State:
    """The state of a transformation with the fields of which something is known."""
    if not is_container(state):
        return state
    return rebuild(state, [known[key] if key in known else _filled(part, known) for key, part in children(state)])


def fields_of(state: State) -> dict[str, Any]:
    """All fields inside the state of a transformation, by name."""
    if not isinstance(state, tuple):
        return {}
    own = dict(children(state)) if is_record(state) else {}
    return own | {name: part for _, below in children(state) for name, part in fields_of(below).items()}
