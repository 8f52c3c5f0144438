"""Golden runs: one safetensors file that holds a problem and what should come of it."""

import os
from typing import Any

import mlx.core as mx

from mlxopt import tree
from mlxopt.base import GradientTransformation
from mlxopt.testing.checking import LawBrokenError
from mlxopt.update import apply_updates

Pathname = str | os.PathLike[str]


def save_trajectory(file: Pathname, params: Any, grads: list[Any], results: list[Any], stores: str = "params") -> None:
    """Write a golden run: a safetensors file with the arrays ``params.<path>``, ``grads.<step>.<path>``, and results.

    Results are ``after.<step>.<path>``, the parameters after each step, or ``updates.<step>.<path>``. Any library can
    write this file: all names are dotted paths, steps count from 0, and parameters are those before the first step.

    Args:
        file: File to write.
        params: Tree of parameters before the first step: nested dicts of arrays.
        grads: Gradients of each step.
        results: What should come of each step.
        stores: What the results are, "params" or "updates".

    Example:
        >>> import tempfile
        >>> file = tempfile.mkdtemp() + "/sgd.safetensors"
        >>> save_trajectory(file, {"w": mx.array(1.0)}, [{"w": mx.array(2.0)}], [{"w": mx.array(0.0)}])
        >>> sorted(mx.load(file))
        ['after.0.w', 'grads.0.w', 'params.w']
    """
    if stores not in ("params", "updates"):
        raise ValueError(f"save_trajectory: stores must be 'params' or 'updates', got {stores!r}. Pick one of them.")
    if len(grads) != len(results):
        raise ValueError(
            f"save_trajectory: there must be one result for each step, got {len(results)} for {len(grads)}. Add some."
        )
    if not os.fspath(file).endswith(".safetensors"):
        raise ValueError(f"save_trajectory: the name must end with .safetensors, got {os.fspath(file)!r}. Add it.")
    name = "after" if stores == "params" else "updates"
    arrays = {f"params.{path}": leaf for path, leaf in tree.items(params)}
    for step, (given, result) in enumerate(zip(grads, results, strict=True)):
        arrays |= {f"grads.{step}.{path}": leaf for path, leaf in tree.items(given)}
        arrays |= {f"{name}.{step}.{path}": leaf for path, leaf in tree.items(result)}
    mx.save_safetensors(os.fspath(file), arrays)


def check_trajectory(tx: GradientTransformation, file: Pathname, *, rtol: float = 1e-5, **extra: Any) -> None:
    """Run a transformation on the problem of a golden run, and compare every step with what is stored.

    Args:
        tx: The transformation.
        file: File that :func:`save_trajectory` wrote, or another program in the same form.
        rtol: Largest difference, as a share of the largest stored value of the leaf.
        extra: Extra arguments of every update.

    Raises:
        LawBrokenError: With the first step and leaf that differ, and by how much.

    Example:
        >>> import tempfile
        >>> from mlxopt import sgd
        >>> file = tempfile.mkdtemp() + "/sgd.safetensors"
        >>> save_trajectory(file, {"w": mx.array(1.0)}, [{"w": mx.array(2.0)}], [{"w": mx.array(0.0)}])
        >>> check_trajectory(sgd(0.5), file)
    """
    loaded: Any = mx.load(os.fspath(file), format="safetensors")
    stored = {kind: _part(loaded, kind) for kind in ("params", "grads", "after", "updates")}
    if not stored["params"] or not stored["grads"] or bool(stored["after"]) == bool(stored["updates"]):
        raise ValueError(
            f"check_trajectory: {os.fspath(file)!r} must hold params, grads, and either after or updates, got "
            f"{sorted({name.split('.')[0] for name in loaded})}. Write it with save_trajectory."
        )
    params, kind = stored["params"], "after" if stored["after"] else "updates"
    state = tx.init(params)
    for step in range(1 + max(int(name.split(".")[0]) for name in stored["grads"])):
        grads, expected = _part(stored["grads"], str(step)), _part(stored[kind], str(step))
        updates, state = tx.update(grads, state, params, **extra)
        moved = apply_updates(params, updates)
        params = moved
        found = moved if kind == "after" else updates
        for name, value in expected.items():
            largest = float(mx.max(mx.abs(value))) or 1.0
            difference = float(mx.max(mx.abs(found[name] - value))) / largest
            if not difference <= rtol:
                raise LawBrokenError(
                    f"check_trajectory: {tx!r} must follow {os.fspath(file)!r}, got a difference of {difference:.1e} "
                    f"of the largest value at step {step} in '{name}', where {rtol:g} is allowed."
                )


def _part(arrays: dict[str, Any], kind: str) -> dict[str, Any]:
    """The arrays whose name begins with a word, by the rest of their names."""
    return {name.removeprefix(f"{kind}."): array for name, array in arrays.items() if name.startswith(f"{kind}.")}
