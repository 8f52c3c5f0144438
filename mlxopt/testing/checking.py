"""Checking a transformation: all laws that apply to it, and an error that says which one it breaks and how."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import mlx.core as mx

from mlxopt import checks
from mlxopt.base import GradientTransformation
from mlxopt.readable import literal
from mlxopt.testing import algebra, compiled, general, reaching, recipes
from mlxopt.testing.problems import Extras, Problem, no_extras
from mlxopt.testing.subjects import Subject

try:
    import hypothesis
except ImportError as error:
    raise ImportError("mlxopt.testing needs hypothesis, which is missing: pip install 'mlxopt[testing]'.") from error

from mlxopt.testing.strategies import problems


class LawBrokenError(AssertionError):
    """A transformation or a schedule does not obey a law; the message says which, and shows an example."""


class Law(NamedTuple):
    """A law, and whom it is about."""

    holds: Callable[..., None]  # of a transformation and a problem if it is held on generated trees, else of a subject
    is_about: Callable[[Subject], bool]
    share: float | None = None  # of the examples, for a law on generated trees; None for the others

    @property
    def name(self) -> str:
        """Name of the law, for waivers."""
        return self.holds.__name__

    @property
    def sentence(self) -> str:
        """The law in one sentence."""
        return (self.holds.__doc__ or "").strip()


def _everything(_: Subject) -> bool:
    return True


def _is_readable(subject: Subject) -> bool:
    """Only what a decorated factory builds prints as its expression."""
    return not repr(subject.build()).endswith("(...)")


GENERAL = [
    Law(general.updates_keep_their_form, _everything, 0.25),
    Law(general.functions_are_pure, _everything, 1.0),
    Law(general.state_keeps_its_form, _everything, 0.25),
    Law(general.forms_are_kept_without_parameters, _everything, 0.25),
    Law(general.state_holds_arrays, _everything, 0.25),
    Law(general.zeros_are_harmless, _everything, 1.0),
    Law(general.empty_trees_are_fine, _everything, 0.25),
    Law(general.low_precision_follows_float32, _everything, 1.0),
    Law(general.parameters_follow_float32, _everything, 1.0),
    Law(general.large_gradients_are_finite, _everything, 0.25),
    Law(general.size_counts_as_stated, lambda subject: subject.degree is not None, 0.25),
    Law(general.nan_is_guarded, _everything, 1.0),
    Law(reaching.looks_no_further_than_stated, lambda subject: subject.build().reach != "tree", 0.25),
    Law(general.resumes_from_a_file, _everything, 1.0),
    Law(general.extras_are_checked, _everything, 0.25),
]
SINGLE = [
    Law(compiled.compiled_equals_eager, _everything),
    Law(compiled.compiled_equals_eager_in_nested_trees, _everything),
    Law(compiled.compiled_follows_eager_in_bfloat16, _everything),
    Law(compiled.one_trace_is_enough, _everything),
    Law(compiled.prints_as_its_expression, _is_readable),
    Law(compiled.injected_hyperparameters_change_nothing, _everything),
]
RECIPE = [
    Law(recipes.schedule_equals_number, lambda subject: subject.rate is not None),
    Law(recipes.learning_rate_is_visible, lambda subject: subject.rate is not None),
    Law(recipes.goes_downhill, lambda subject: subject.rate is not None),
]
DECAY = [
    Law(recipes.decay_schedule_equals_number, lambda subject: subject.decay is not None),
    Law(recipes.weight_decay_is_visible, lambda subject: subject.decay is not None),
]
ALGEBRA = [
    Law(holds, _everything, 0.25)
    for holds in (
        algebra.chain_of_one,
        algebra.chain_is_one_after_the_other,
        algebra.chain_is_associative,
        algebra.empty_chain_is_neutral,
        algebra.identity_is_neutral,
        algebra.names_change_nothing,
        algebra.masked_everywhere,
        algebra.masked_nowhere,
        algebra.partition_of_one,
        algebra.disjoint_masks_commute,
        algebra.partition_is_masks,
        algebra.freezing_is_a_mask,
    )
]
LAWS = [*GENERAL, *SINGLE, *RECIPE, *DECAY, *ALGEBRA]


def laws() -> dict[str, str]:
    """List the laws of transformations: the sentence of each by its name.

    Example:
        >>> laws()["state_holds_arrays"]
        'Every leaf of the state is an mx.array.'
    """
    return {law.name: law.sentence for law in LAWS}


def check(
    factory: Callable[..., GradientTransformation],
    settings: Mapping[str, Any] | None = None,
    *,
    rate: float | None = None,
    extras: Extras = no_extras,
    static_args: Iterable[str] = (),
    waivers: Mapping[str, str] | None = None,
    finite_to: float = 1e18,
    degree: int | None = None,
    examples: int = 20,
) -> None:
    """Hold a transformation to all laws that apply to it, on generated trees and on fixed ones, eager and compiled.

    Args:
        factory: Function that builds the transformation.
        settings: Its arguments, by name.
        rate: If it is a whole optimizer, a learning rate that suits it for steps of about a tenth; the argument
            ``learning_rate`` is then checked as well.
        extras: Function from gradients to the extra arguments that an update needs, by name.
        static_args: Arguments that are used as Python numbers, so that no schedule can set them.
        waivers: Laws that it does not obey, by name, with the reason for each.
        finite_to: Magnitude of gradients up to which updates and states are finite: less than 1e18 for what takes
            higher powers than squares.
        degree: 0 if the size of gradients makes no difference, 1 if twice the gradients are twice the updates; None if
            neither holds from 1e-30 to 1e18.
        examples: Generated problems for each law; structural laws get a quarter.

    Raises:
        LawBrokenError: With the sentence of the law, the smallest example, and the lines that reproduce it.

    Example:
        >>> from mlxopt import clip
        >>> check(clip, {"max_delta": 0.5}, examples=2)
    """
    told = {"extras": extras, "static": tuple(static_args), "waivers": waivers or {}}
    subject = subject_of("check", factory, settings, rate, **told, finite_to=finite_to, degree=degree)
    for _, hold in _holdings(subject, examples):
        hold()


def cases(
    factory: Callable[..., GradientTransformation],
    settings: Mapping[str, Any] | None = None,
    *,
    rate: float | None = None,
    extras: Extras = no_extras,
    static_args: Iterable[str] = (),
    waivers: Mapping[str, str] | None = None,
    finite_to: float = 1e18,
    degree: int | None = None,
    examples: int = 20,
) -> tuple[str, list[Any]]:
    """Make one test of pytest for each law: the arguments of ``pytest.mark.parametrize``, for a test of one ``case``.

    Args:
        factory: As for :func:`check`, like all the others.
        settings: Its arguments, by name.
        rate: Learning rate of a whole optimizer.
        extras: Function from gradients to extra arguments.
        static_args: Arguments that are used as Python numbers.
        waivers: Laws that it does not obey, which become skips that show the reason.
        finite_to: Magnitude of gradients up to which all is finite.
        degree: Whether the size of gradients makes no difference (0) or is that of updates (1).
        examples: Generated problems for each law.

    Example:
        >>> from mlxopt import clip
        >>> name, made = cases(clip, {"max_delta": 0.5})
        >>> name, made[0].id
        ('case', 'updates_keep_their_form')
    """
    import pytest

    told = {"extras": extras, "static": tuple(static_args), "waivers": waivers or {}}
    subject = subject_of("cases", factory, settings, rate, **told, finite_to=finite_to, degree=degree)
    held = [pytest.param(hold, id=law.name) for law, hold in _holdings(subject, examples)]
    waived = [pytest.param(None, id=name, marks=pytest.mark.skip(reason=why)) for name, why in subject.waivers.items()]
    return "case", [*held, *waived]


def subject_of(
    where: str,
    factory: Callable[..., GradientTransformation],
    settings: Mapping[str, Any] | None,
    rate: float | None,
    **told: Any,
) -> Subject:
    """A factory with what the laws need to know, or an error that says what is missing."""
    if not callable(factory) or isinstance(factory, type):
        raise TypeError(f"{where}: factory must be a function that builds a transformation, got {factory!r}. Pass it.")
    known = laws()
    for name, why in told["waivers"].items():
        if name not in known or not why:
            raise ValueError(
                f"{where}: waivers must name laws and give reasons, got {name!r}: {why!r}. The laws are {[*known]}."
            )
    checks.positive(where, finite_to=told["finite_to"])
    checks.choice(where, "degree", told["degree"], (None, 0, 1))
    given = {**(settings or {}), **({} if rate is None else {"learning_rate": rate})}
    name = getattr(factory, "__name__", "factory")
    subject = Subject(name, factory, given, rate, **told)
    built = subject.build()
    if not isinstance(built, GradientTransformation):
        raise TypeError(
            f"{where}: factory must build a GradientTransformation, got {built!r}. "
            "Wrap the pair: GradientTransformation(init, update)."
        )
    return subject


def _holdings(subject: Subject, examples: int) -> list[tuple[Law, Callable[[], None]]]:
    """The laws that apply, each with a call that raises if it is broken."""

    settings = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )

    def holding(law: Law) -> Callable[[], None]:
        return lambda: hold(law, subject, settings)

    return [(law, holding(law)) for law in LAWS if law.is_about(subject) and law.name not in subject.waivers]


def hold(law: Law, subject: Subject, settings: hypothesis.settings) -> None:
    """Raise unless a law holds; for one on generated trees look for the smallest example."""
    if law.share is None:
        try:
            law.holds(subject)
        except Exception as error:
            raise LawBrokenError(_message(law, subject, error)) from error
        return
    found: list[tuple[Problem, Exception]] = []

    @hypothesis.settings(settings, max_examples=max(round(law.share * settings.max_examples), 1))
    @hypothesis.given(problem=problems())
    def search(problem: Problem) -> None:
        try:
            law.holds(subject.build(), subject.told(problem))
        except Exception as error:
            found.append((problem, error))
            raise

    try:
        search()
    except Exception as error:
        if not found:
            raise
        problem, cause = found[-1]  # hypothesis ends with the smallest one
        raise LawBrokenError(_message(law, subject, cause, problem)) from error


def _message(law: Law, subject: Subject, error: Exception, problem: Problem | None = None) -> str:
    settings = ", ".join(f"{name}={literal(value)}" for name, value in subject.settings.items())
    lines = [f"{subject.name} breaks the law {law.name}: {law.sentence}"]
    if str(error):
        lines.append(f"It said: {type(error).__name__}: {error}" if type(error) is not AssertionError else f"{error}")
    if problem is not None:
        lines += ["The smallest example:", f"    tx = {subject.name}({settings})"]
        lines += [f"    params = {_written(problem.params)}", "    state = tx.init(params)"]
        extra = ", **extras(grads)" if subject.extras is not no_extras else ""
        lines += [f"    updates, state = tx.update({_written(grads)}, state, params{extra})" for grads in problem.grads]
    lines.append(f"If this is meant, pass waivers={{{law.name!r}: reason}}.")
    return "\n".join(lines)


def _written(node: Any) -> str:
    """A tree as the expression that makes it."""
    if isinstance(node, mx.array):
        return f"mx.array({node.tolist()!r}, {literal(node.dtype)})"
    if isinstance(node, dict):
        return "{" + ", ".join(f"{key!r}: {_written(part)}" for key, part in node.items()) + "}"
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return f"{type(node).__name__}({', '.join(_written(part) for part in node)})"
    if isinstance(node, (list, tuple)):
        inside = ", ".join(_written(part) for part in node)
        return f"[{inside}]" if isinstance(node, list) else f"({inside}{',' if len(node) == 1 else ''})"
    return repr(node)
