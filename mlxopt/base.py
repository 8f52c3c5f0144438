"""The words: what a gradient transformation is, how it is called, and how it reads when printed."""

import contextlib
import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

import mlx.core as mx
from typing_extensions import Self

from mlxopt import tree
from mlxopt.readable import literal, readable

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

Choice = Any
"""Which leaves are meant: a function of path and leaf, or a tree of values that hold for all leaves below them."""

COMMON_EXTRAS = frozenset({"value", "grad", "value_fn", "grad_fn", "obj_fn", "key"})
"""Extra arguments that every ``update`` accepts, and ignores if it has no use for them."""


class EmptyState(NamedTuple):
    """Memory of a transformation that remembers nothing.

    Example:
        >>> identity().init({"w": mx.array(1.0)})
        EmptyState()
    """


class _Needs(NamedTuple):
    """What an ``update`` function asks for, read from its signature."""

    params: bool
    state: type | None
    extras: frozenset[str]
    required: frozenset[str]
    any_extras: bool


def _read_needs(update: Callable[..., Any]) -> _Needs:
    try:
        signature = inspect.signature(update, eval_str=True)
    except NameError:  # an annotation that is text and names something local to the factory
        signature = inspect.signature(update)
    parameters = list(signature.parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) != 3:
        raise TypeError(
            f"GradientTransformation: update must take (updates, state, params), got {len(positional)} positional "
            "parameters. Write update(updates, state, params=None), with extras as keyword-only parameters."
        )
    _, state, params = positional
    keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    return _Needs(
        params=params.default is params.empty,
        state=state.annotation if isinstance(state.annotation, type) and hasattr(state.annotation, "_fields") else None,
        extras=frozenset(p.name for p in keywords),
        required=frozenset(p.name for p in keywords if p.default is p.empty),
        any_extras=any(p.kind is p.VAR_KEYWORD for p in parameters),
    )


class GradientTransformation(tuple[Callable[..., State], Callable[..., tuple[Updates, State]]]):
    """A pair of pure functions, ``init(params) -> state`` and ``update(updates, state, params, **extra)``.

    ``update`` returns the new updates and the new state. Around the two functions it is given, a transformation

    * does its arithmetic in float32: float16 and bfloat16 updates are widened before ``update`` sees them, and what it
      returns is rounded once, to the dtype that came in;
    * checks how it is called: arrays at the leaves, updates that fit the parameters, ``params`` if that parameter of
      ``update`` has no default, the type of the state if that parameter is annotated with a NamedTuple, and the extra
      arguments, which are the keyword-only parameters of ``update``;
    * checks what it returns: updates and state have the structure, shapes and dtypes of those that came in.

    Args:
        init: Function from parameters to a state that holds arrays only.
        update: Function of ``(updates, state, params)`` and keyword-only extras.
        inner: Transformations that ``update`` calls; it takes their extras, and hands them on with ``accepted``.
        share: Function from parameters to what each of these sees of them; each sees all by default.
        stages: The same for a chain, which dissolves when it is put into another chain.

    Example:
        >>> def flip():
        ...     def init(params):
        ...         return EmptyState()
        ...     def update(updates, state, params=None):
        ...         return tree.map(lambda u: -u, updates), state
        ...     return GradientTransformation(init, update)
        >>> tx = flip()
        >>> tx.update({"w": mx.array([1.0])}, tx.init({"w": mx.array([0.0])}))
        ({'w': array([-1], dtype=float32)}, EmptyState())
    """

    name: str
    stages: tuple["GradientTransformation", ...] | None
    inner: tuple["GradientTransformation", ...] | None
    share: Callable[[Params], list[Params]]

    def __new__(
        cls,
        init: Callable[..., State],
        update: Callable[..., tuple[Updates, State]],
        *,
        inner: Iterable["GradientTransformation"] | None = None,
        share: Callable[[Params], list[Params]] | None = None,
        stages: Iterable["GradientTransformation"] | None = None,
    ) -> Self:
        for role, function in (("init", init), ("update", update)):
            if not callable(function):
                raise TypeError(
                    f"GradientTransformation: {role} must be a function, got {function!r}. Pass a function."
                )

        def checked_init(params: Params) -> State:
            with tree.naming(self.name):
                tree.map(tree.require_array, params)
                state = init(params)
                tree.map(tree.require_array, state)
                return state

        def checked_update(
            updates: Updates, state: State, params: Params | None = None, **extra: Any
        ) -> tuple[Updates, State]:
            self._check_call(state, params, extra)
            with tree.naming(self.name), _entering() as outermost:
                if outermost and params is not None:
                    with tree.naming(f"{self.name}: updates do not fit params"):
                        wide = tree.map(_wide_and_fitting, params, updates, holes=True)
                else:
                    wide = tree.map(tree.widen, updates)
                returned = update(wide, state, params, **self.accepted(extra))
                if not (isinstance(returned, tuple) and len(returned) == 2):
                    raise TypeError(f"{self.name}: update must return (updates, state), got {returned!r}. Return both.")
                changed, new_state = returned
                if outermost:
                    new_state = tree.map(_as_it_was, state, new_state)
                return tree.map(_as_it_came, updates, changed), new_state

        self = super().__new__(cls, (checked_init, checked_update))
        self._raw = (init, update)
        self._needs = _read_needs(update)
        self.stages = None if stages is None else tuple(stages)
        self.inner = self.stages if inner is None else tuple(inner)
        self.share = share or (lambda params: [params] * len(self.inner or ()))
        self.name = getattr(update, "__qualname__", "update").split(".<locals>")[0]
        self._spell = lambda: f"{self.name}(...)"
        return self

    _raw: tuple[Callable[..., State], Callable[..., tuple[Updates, State]]]
    _needs: _Needs
    _spell: Callable[[], str]

    @property
    def init(self) -> Callable[[Params], State]:
        """Function from parameters to the first state."""
        return self[0]

    @property
    def update(self) -> Callable[..., tuple[Updates, State]]:
        """Function from updates, state, parameters and extras to new updates and the new state."""
        return self[1]

    @property
    def extras(self) -> frozenset[str]:
        """Extra arguments with a use in this transformation or in one inside it."""
        return self._needs.extras.union(*(inner.extras for inner in self.inner or ()))

    @property
    def _any_extras(self) -> bool:
        if self.inner is None:
            return self._needs.any_extras
        return any(inner._any_extras for inner in self.inner)

    def accepted(self, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Keep the extra arguments that this transformation has a use for."""
        return {name: value for name, value in extra.items() if self._any_extras or name in self.extras}

    def spelled(self, name: str, spell: Callable[[], str]) -> Self:
        """The same transformation under another name and expression."""
        renamed = type(self)(*self._raw, inner=self.inner, share=self.share, stages=self.stages)
        renamed.name, renamed._spell = name, spell
        return renamed

    def __repr__(self) -> str:
        return self._spell()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def _check_call(self, state: State, params: Params | None, extra: Mapping[str, Any]) -> None:
        if not self._any_extras:
            for name in sorted(extra.keys() - self.extras - COMMON_EXTRAS):
                nearest = difflib.get_close_matches(name, self.extras | COMMON_EXTRAS, n=1)
                advice = f"Did you mean '{nearest[0]}'?" if nearest else "Leave it out."
                raise TypeError(f"{self.name}: update has no use for the extra argument '{name}'. {advice}")
        for name in sorted(self._needs.required - extra.keys()):
            raise TypeError(
                f"{self.name}: update needs the extra argument '{name}', got none. Call update(..., {name}=...)."
            )
        if self._needs.params and params is None:
            raise ValueError(f"{self.name}: update needs params, got None. Call update(updates, state, params).")
        if self._needs.state is not None and not isinstance(state, self._needs.state):
            raise TypeError(
                f"{self.name}: state must be a {self._needs.state.__name__}, got {type(state).__name__}. "
                "Pass the state that this transformation's init or last update returned."
            )


_nested: ContextVar[bool] = ContextVar("nested", default=False)


@contextlib.contextmanager
def _entering() -> Iterator[bool]:
    """Say whether this call is the outermost one, which alone compares what came in with what goes out."""
    token = _nested.set(True)
    try:
        yield token.old_value is not True
    finally:
        _nested.reset(token)


def _wide_and_fitting(param: mx.array, update: mx.array | None) -> mx.array | None:
    """Widen an update that has the shape of its parameter, in the key order of the parameters."""
    if update is None:
        return None
    tree.require_same_shape(update, param)
    return tree.widen(update)


def _as_it_was(old: mx.array, new: mx.array) -> mx.array:
    """Pass a new leaf of the state that has the form of the old one, in the key order of the old state."""
    if not isinstance(new, mx.array):
        raise tree.TreeError(f"update put {new!r} into the state, which holds arrays only. Wrap it in mx.array")
    if (old.shape, old.dtype) != (new.shape, new.dtype):
        raise tree.TreeError(
            f"update turned a state of {old.dtype} and shape {old.shape} into {new.dtype} and shape {new.shape}. "
            "Keep its form: a state that changes it would be compiled anew at every step"
        )
    return new


def _as_it_came(update: mx.array, changed: mx.array) -> mx.array:
    """Round what became of an update to the dtype in which it came."""
    tree.require_same_shape(changed, update)
    if mx.issubdtype(changed.dtype, mx.inexact) and not mx.issubdtype(update.dtype, mx.inexact):
        raise tree.TreeError(f"a {update.dtype} update would be cut to whole numbers. Cast it, or mask this leaf")
    if changed.dtype == mx.complex64 != update.dtype:
        raise tree.TreeError(f"a {update.dtype} update would lose its imaginary part. Return its real part")
    return changed if changed.dtype == update.dtype else changed.astype(update.dtype)


def require_transformation(where: str, tx: Any) -> None:
    """Raise unless ``tx`` is a transformation."""
    if not isinstance(tx, GradientTransformation):
        raise TypeError(
            f"{where}: expected a GradientTransformation, got {tx!r}. "
            "Call its factory, or wrap the pair: GradientTransformation(init, update)."
        )


# The smallest transformations


def stateless(f: Callable[[Updates, Params | None], Updates]) -> GradientTransformation:
    """Build a transformation without memory from a function of updates and parameters.

    Args:
        f: Function from whole trees of updates and parameters (``None`` if none were given) to new updates.

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

    return GradientTransformation(init_fn, update_fn).spelled("stateless", lambda: f"stateless({literal(f)})")


def stateless_with_tree_map(f: Callable[[mx.array, mx.array | None], mx.array]) -> GradientTransformation:
    """Build a transformation without memory from a function of one update and its parameter.

    Args:
        f: Function from an update and its parameter (``None`` if none were given) to the new update.

    Example:
        >>> tx = stateless_with_tree_map(lambda u, p: 2.0 * u)
        >>> tx.update({"w": mx.array(1.0)}, tx.init({"w": mx.array(0.0)}))
        ({'w': array(2, dtype=float32)}, EmptyState())
    """

    def rule(updates: Updates, params: Params | None) -> Updates:
        return tree.map(lambda u: f(u, None), updates) if params is None else tree.map(f, updates, params)

    return stateless(rule).spelled("stateless_with_tree_map", lambda: f"stateless_with_tree_map({literal(f)})")


@readable
def identity() -> GradientTransformation:
    """Pass updates on unchanged.

    Example:
        >>> identity()
        identity()
    """
    return stateless(lambda updates, params: updates)


@readable
def set_to_zero() -> GradientTransformation:
    """Replace updates by zeros, so that parameters stay where they are.

    Example:
        >>> tx = set_to_zero()
        >>> tx.update({"w": mx.array(float("nan"))}, tx.init({"w": mx.array(0.0)}))
        ({'w': array(0, dtype=float32)}, EmptyState())
    """
    return stateless(lambda updates, params: tree.zeros_like(updates))
