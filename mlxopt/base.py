"""The words: what a gradient transformation is, how it is called, and how it reads when printed."""

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

import mlx.core as mx
from typing_extensions import Self

from mlxopt import tracing, tree
from mlxopt.reach import Reach, reach_of
from mlxopt.readable import literal, readable
from mlxopt.signatures import needs_of, require_given, require_known
from mlxopt.tree import forms

Params = Any
"""Tree of parameters."""

Updates = Any
"""Tree of gradients on their way to become parameter changes; same structure as the parameters."""

State = Any
"""What a transformation remembers: NamedTuples, tuples and dicts of arrays."""

Schedule = Callable[[Any], Any]
"""Function from a count of updates to a value."""

ScalarOrSchedule = float | mx.array | Schedule
"""A hyperparameter that is constant or follows a schedule."""

Mask = Any
"""Which leaves are meant: a function of path and leaf, or a tree of values that hold for all leaves below them."""

COMMON_EXTRAS = frozenset({"value", "grad", "value_fn", "grad_fn", "obj_fn", "key"})
"""Extra arguments that every ``update`` accepts, and ignores if it has no use for them."""


class EmptyState(NamedTuple):
    """Memory of a transformation that remembers nothing.

    Example:
        >>> identity().init({"w": mx.array(1.0)})
        EmptyState()
    """


class Inner(NamedTuple):
    """What a wrapper says of a transformation that it calls.

    Example:
        >>> Inner(identity(), place=("inner_state",))
        Inner(tx=identity(), place=('inner_state',), share=None)
    """

    tx: "GradientTransformation"
    place: tuple[Any, ...] | None = None  # where its state stands in that of the wrapper; None if nowhere as it is
    share: Callable[[Params], Params] | None = None  # what it sees of the parameters; None if all


class GradientTransformation:
    """A pair of pure functions: ``init(params) -> state`` and ``update(updates, state, params, **extra)``.

    ``update`` returns the new updates and the new state. Around the two functions it is given, a transformation

    * does its arithmetic in float32: float16 and bfloat16 updates, parameters and memory are widened before ``update``
      sees them, and what it returns is rounded once, to the dtypes that came in;
    * checks how it is called: arrays at the leaves, updates that fit the parameters, ``params`` if that parameter of
      ``update`` has no default, the type of the state if that parameter is annotated with a NamedTuple, and the extra
      arguments, which are the keyword-only parameters of ``update``;
    * hands a transformation inside another one only the extra arguments that it has a use for;
    * checks what it returns: updates and state have the structure, shapes and dtypes of those that came in.

    It unpacks: ``init, update = tx``.

    Args:
        init: Function from parameters to a state that holds arrays only.
        update: Function of ``(updates, state, params)`` and keyword-only extras.
        inner: Transformations that ``update`` calls, or an :class:`Inner` for each, with which ``describe`` finds their
            states. What they take as extras this one takes as well.
        extras: Names of further extras that ``update`` has a use for and takes as ``**extra``.
        as_stored: Let ``update`` see parameters and memory in the dtypes in which they are stored: for what hands them
            to other transformations, or rounds by itself.
        stages: The transformations of a chain, which dissolves when it is put into another chain.
        reach: What the update of an element depends on, besides scalars that all share such as a count: "element" if on
            nothing but its own gradients, parameter and memory, "leaf" if on those of its leaf and its shape or path,
            "tree" if on other leaves. ``distributed.shard`` asks for it; inner transformations count as well.

    Example:
        >>> def flip():
        ...     def init(params):
        ...         return EmptyState()
        ...     def update(updates, state, params=None):
        ...         return tree.map(lambda u: -u, updates), state
        ...     return GradientTransformation(init, update, reach="element")
        >>> tx = flip()
        >>> tx.update({"w": mx.array([1.0])}, tx.init({"w": mx.array([0.0])}))
        ({'w': array([-1], dtype=float32)}, EmptyState())
    """

    name: str
    stages: tuple["GradientTransformation", ...] | None
    inner: tuple[Inner, ...]
    extras: frozenset[str]  # with a use here or in a transformation inside
    reach: Reach  # the furthest of its own and of those inside

    def __init__(
        self,
        init: Callable[..., State],
        update: Callable[..., tuple[Updates, State]],
        *,
        inner: Iterable["Inner | GradientTransformation"] | None = None,
        extras: Iterable[str] = (),
        as_stored: bool = False,
        stages: Iterable["GradientTransformation"] | None = None,
        reach: Reach = "tree",
    ) -> None:
        for role, function in (("init", init), ("update", update)):
            if not callable(function):
                raise TypeError(f"GradientTransformation: {role} must be a function, got {function!r}. Pass one.")
        self._init, self._update, self._as_stored = init, update, as_stored
        self._needs = needs_of(update)
        self.stages = None if stages is None else tuple(stages)
        self.inner = tuple(part if isinstance(part, Inner) else Inner(part) for part in inner or ())
        self.name = getattr(update, "__qualname__", "update").split(".<locals>")[0]
        self._spell: Callable[[], str] = lambda: f"{self.name}(...)"
        extras = frozenset(extras)
        self.extras = self._needs.extras.union(extras, *(part.tx.extras for part in self.inner))
        self.reach = reach_of(reach, self._needs.extras, extras, [part.tx.reach for part in self.inner])
        self._any_extras: bool = self._needs.any_extras and (
            inner is None or any(part.tx._any_extras for part in self.inner)
        )

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter((self.init, self.update))

    def init(self, params: Params) -> State:
        """Make the first state.

        Args:
            params: Tree of parameters.
        """
        with tree.naming(self.name):
            tree.map(tree.require_array, params)
            state = self._init(params)
            tree.map(tree.require_array, state)
            return state

    def update(
        self, updates: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, State]:
        """Make new updates and the next state.

        Args:
            updates: Tree of gradients, or of what another transformation made of them.
            state: What ``init`` or the last ``update`` returned.
            params: Tree of parameters.
            extra: Extra arguments, by name.
        """
        with tree.naming(self.name), _entering(self.name) as outer:
            outermost = outer is None
            self._require_call(state, params, extra, outer)
            used = {name: value for name, value in extra.items() if self._any_extras or name in self.extras}
            if outermost and params is not None:
                with tree.naming(f"{self.name}: updates do not fit params"):
                    wide = tree.map(forms.wide_and_fitting, params, updates, holes=True)
            else:
                wide = forms.widened(updates)
            update = tracing.inside(self._update)
            if self._as_stored:
                returned = update(wide, state, params, **used)
            else:
                wide_params = None if params is None else forms.widened(params)
                returned = update(wide, forms.widened(state), wide_params, **used)
            if not (isinstance(returned, tuple) and len(returned) == 2):
                raise TypeError(f"{self.name}: update must return (updates, state), got {returned!r}. Return both.")
            changed, new_state = returned
            if outermost or not self._as_stored:
                new_state = tree.map(forms.as_it_was, state, new_state)
            return tree.map(forms.as_it_leaves if outermost else forms.as_it_came, updates, changed), new_state

    def spelled(self, name: str, spell: Callable[[], str]) -> Self:
        """The same transformation under another name and expression."""
        renamed = copy.copy(self)
        renamed.name, renamed._spell = name, spell
        return renamed

    def __repr__(self) -> str:
        return self._spell()

    def _require_call(self, state: State, params: Params | None, extra: Mapping[str, Any], outer: str | None) -> None:
        if outer is None and not self._any_extras:
            require_known(self.name, extra, self.extras | COMMON_EXTRAS)
        where = self.name if outer in (None, self.name) else f"{outer}: {self.name}"
        require_given(where, extra, self._needs.required)
        if self._needs.params and params is None:
            raise ValueError(f"{where}: update needs params, got None. Call update(updates, state, params).")
        if self._needs.state is not None and not isinstance(state, self._needs.state):
            raise TypeError(
                f"{where}: state must be a {self._needs.state.__name__}, got {type(state).__name__}. "
                "Pass the state that this transformation's init or last update returned."
            )


_outermost: ContextVar[str | None] = ContextVar("outermost", default=None)


@contextlib.contextmanager
def _entering(name: str) -> Iterator[str | None]:
    """Name the outermost call around this one; the outermost alone compares what came in with what goes out."""
    outer = _outermost.get()
    token = _outermost.set(outer or name)
    try:
        yield outer
    finally:
        _outermost.reset(token)


def require_transformation(where: str, tx: Any) -> None:
    """Raise unless ``tx`` is a transformation."""
    if not isinstance(tx, GradientTransformation):
        raise TypeError(
            f"{where}: expected a GradientTransformation, got {tx!r}. "
            "Call its factory, or wrap the pair: GradientTransformation(init, update)."
        )


# The smallest transformations


def stateless(f: Callable[[Updates, Params | None], Updates], *, reach: Reach = "tree") -> GradientTransformation:
    """Build a transformation without memory from a function of updates and parameters.

    Args:
        f: Function from whole trees of updates and parameters (``None`` if none were given) to new updates.
        reach: What an element of its result depends on, as for :class:`GradientTransformation`.

    Example:
        >>> tx = stateless(lambda updates, params: tree.scale(2.0, updates))
        >>> tx.update({"w": mx.array(1.0)}, tx.init({"w": mx.array(0.0)}))
        ({'w': array(2, dtype=float32)}, EmptyState())
    """

    def init_fn(params: Params) -> EmptyState:
        del params
        return EmptyState()

    def update_fn(updates: Updates, state: EmptyState, params: Params | None = None) -> tuple[Updates, EmptyState]:
        return f(updates, params), state

    said = "" if reach == "tree" else f", reach={reach!r}"
    tx = GradientTransformation(init_fn, update_fn, reach=reach)
    return tx.spelled("stateless", lambda: f"stateless({literal(f)}{said})")


def stateless_with_tree_map(
    f: Callable[[mx.array, mx.array | None], mx.array], *, reach: Reach = "leaf"
) -> GradientTransformation:
    """Build a transformation without memory from a function of one update and its parameter.

    Args:
        f: Function from an update and its parameter (``None`` if none were given) to the new update.
        reach: What an element of its result depends on, as for :class:`GradientTransformation`.

    Example:
        >>> tx = stateless_with_tree_map(lambda u, p: 2.0 * u)
        >>> tx.update({"w": mx.array(1.0)}, tx.init({"w": mx.array(0.0)}))
        ({'w': array(2, dtype=float32)}, EmptyState())
    """

    def rule(updates: Updates, params: Params | None) -> Updates:
        return tree.map(lambda u: f(u, None), updates) if params is None else tree.map(f, updates, params)

    said = "" if reach == "leaf" else f", reach={reach!r}"
    tx = stateless(rule, reach=reach)
    return tx.spelled("stateless_with_tree_map", lambda: f"stateless_with_tree_map({literal(f)}{said})")


@readable
def identity() -> GradientTransformation:
    """Pass updates on unchanged.

    Example:
        >>> identity()
        identity()
    """
    return stateless(lambda updates, params: updates, reach="element")


@readable
def set_to_zero() -> GradientTransformation:
    """Replace updates by zeros, so that parameters stay where they are.

    Example:
        >>> tx = set_to_zero()
        >>> tx.update({"w": mx.array(float("nan"))}, tx.init({"w": mx.array(0.0)}))
        ({'w': array(0, dtype=float32)}, EmptyState())
    """
    return stateless(lambda updates, params: tree.zeros_like(updates), reach="element")
