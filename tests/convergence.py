"""Four small problems, and in how many steps each optimizer solves them at the settings of ``convergence.md``.

``python tests/convergence.py adam lion`` measures the rows of these optimizers anew; without names, all of them.
"""

import argparse
import math
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
from compiler import quicken

import mlxopt as mo
from mlxopt import tree
from mlxopt.base import GradientTransformation, Params
from mlxopt.testing.comparing import number

TABLE = Path(__file__).with_suffix(".md")

SHAPE = (4, 9)  # of the parameters: a matrix, so that rules for matrices have something to do
SIZE = 36

OF_INPUTS, OF_TEACHER, OF_VECTORS = mx.random.split(mx.random.key(0), 3)
GOAL, START = mx.random.normal((2, SIZE), key=OF_VECTORS)


def waves() -> mx.array:
    """Orthogonal directions, none of them along an axis: a cosine transform."""
    index = mx.arange(SIZE) + 0.5
    return math.sqrt(2 / SIZE) * mx.cos(math.pi / SIZE * mx.outer(index, index))


WAVES = waves()


def quadratic(x: mx.array, curvatures: mx.array) -> mx.array:
    return 0.5 * mx.sum(curvatures * mx.square((x - GOAL) @ WAVES))


def rosenbrock(x: mx.array) -> mx.array:
    """Rosenbrock's function of 18 pairs."""
    along, across = mx.split(x, 2)
    return mx.mean(100 * mx.square(across - mx.square(along)) + mx.square(1 - along))


INPUTS = mx.random.normal((64, 8), key=OF_INPUTS)
TEACHER = mx.concatenate([mx.random.normal((4, 8), key=OF_TEACHER), mx.array([[1.0], [-1.0], [1.0], [-1.0]])], axis=1)


def scores(x: mx.array) -> mx.array:
    """A network of four hidden units; what they add to its answer is the last column."""
    hidden, output = mx.split(x.reshape(SHAPE), [8], axis=1)
    return (mx.tanh(INPUTS @ hidden.T) @ output).reshape(-1)


LABELS = mx.sign(scores(TEACHER))


def cross_entropy(x: mx.array) -> mx.array:
    return mx.mean(mx.logaddexp(0.0, -LABELS * scores(x)))


class Problem(NamedTuple):
    """One of the problems: what makes it of the loss of all of them, which is compiled once."""

    share: float  # of the first value, which the last one must not exceed
    start: mx.array
    parts: tuple[mx.array, ...]  # numbers that the three losses are multiplied by
    curvatures: mx.array = mx.ones((SIZE,))


QUADRATIC, ROSENBROCK, NETWORK = (tuple(row) for row in mx.eye(3))
VALLEY = mx.concatenate([mx.linspace(-0.5, 0.3, SIZE // 2), mx.zeros((SIZE // 2,))])


def curvatures(condition: float) -> mx.array:
    """From 1 down to one over the condition number, by equal factors."""
    return mx.power(condition, -mx.linspace(0.0, 1.0, SIZE))


PROBLEMS = {
    "quadratic": Problem(1e-3, START, QUADRATIC, curvatures(10.0)),
    "ill-conditioned": Problem(5e-3, START, QUADRATIC, curvatures(1e4)),
    "Rosenbrock": Problem(1e-1, VALLEY, ROSENBROCK),
    "network": Problem(5e-2, 0.5 * START, NETWORK),
}


def loss_fn(params: Params, parts: tuple[mx.array, ...], curvatures: mx.array) -> mx.array:
    # The gradient of a view is no part of the kernels of an optimizer, so those of other tests serve here too.
    x = params["hidden"]["weight"].reshape(-1)
    return parts[0] * quadratic(x, curvatures) + parts[1] * rosenbrock(x) + parts[2] * cross_entropy(x)


# Rows


class Cell(NamedTuple):
    """In so many steps an optimizer solves a problem, at a learning rate that begins with this one."""

    steps: int
    rate: float

    def __str__(self) -> str:
        return f"{self.steps} at {self.rate:g}"


class Row(NamedTuple):
    """An optimizer as an expression of ``rate``, which falls to zero, or of ``peak``, the number that it falls from."""

    expression: str
    cells: dict[str, Cell | str]  # by problem; a text says why it is not solved

    @property
    def name(self) -> str:
        return self.expression.partition("(")[0]

    def __str__(self) -> str:
        return " | ".join([f"| `{self.expression}`", *map(str, self.cells.values())]) + " |"


def rows(text: str) -> Iterator[Row]:
    """The rows of the table."""
    for expression, *cells in (line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")):
        yield Row(expression.strip("`"), dict(zip(PROBLEMS, map(_cell, cells), strict=True)))


def _cell(text: str) -> Cell | str:
    found = re.fullmatch(r"(\d+) at ([\d.e-]+)", text)
    return Cell(int(found[1]), float(found[2])) if found else text


# Runs


def share_left(optimizer: Any, problem: Problem, steps: int) -> float:
    """What is left of the first value after a run."""
    data, start = (problem.parts, problem.curvatures), {"hidden": {"weight": problem.start.reshape(SHAPE)}}
    if ends_in_a_search(optimizer):
        params = mo.minimize(lambda params: loss_fn(params, *data), start, optimizer, max_iter=steps, tol=0.0).params
    elif isinstance(optimizer, mo.PrivateStep):
        params = trained(optimizer, start, tree.map(lambda array: array[None], data), steps)
    else:
        params = trained((optimizer.init, mo.compile_step(loss_fn, optimizer)), start, data, steps)
    return number(loss_fn(params, *data) / loss_fn(start, *data))


def ends_in_a_search(optimizer: Any) -> bool:
    stages = (optimizer.stages or ()) if isinstance(optimizer, GradientTransformation) else ()
    return any(stage.name.endswith("linesearch") for stage in stages[-1:])


def trained(optimizer: tuple[Any, Any], params: Params, data: Any, steps: int) -> Params:
    """The parameters to evaluate with after so many steps."""
    init, step = optimizer
    state = init(params)
    for index in range(steps):
        params, state, _ = step(params, state, *data)
        if index % 8 == 7:
            mx.eval(params, state)
    return mo.eval_params(state, params)


def built(expression: str, cell: Cell) -> Any:
    """The optimizer of a row for one cell."""
    names = {**vars(mo), "loss_fn": loss_fn, "rate": mo.cosine_decay(cell.rate, cell.steps), "peak": cell.rate}
    return eval(expression, names)


def solves(expression: str, name: str, cell: Cell) -> bool:
    """Whether an optimizer solves a problem in so many steps."""
    problem = PROBLEMS[name]
    return share_left(built(expression, cell), problem, cell.steps) <= problem.share


def too_few(cell: Cell) -> Cell:
    """Steps in which it must not be solved, or else the cell grants too many."""
    return cell._replace(steps=2 * cell.steps // 3)


def fits(expression: str, name: str, cell: Cell) -> bool:
    return solves(expression, name, cell) and not solves(expression, name, too_few(cell))


# The table


def fewest(expression: str, name: str, cell: Cell) -> int:
    """The fewest steps in which a problem is solved, if it also is in any more up to those of the cell; otherwise 0."""
    steps, least = cell.steps, 0
    while steps > 0 and solves(expression, name, cell._replace(steps=steps)):
        least, steps = steps, min(steps - 1, round(0.95 * steps))
    return least


def granted(steps: int) -> int:
    """A fifth more, since other machines round differently, in two digits."""
    more = math.ceil(1.2 * steps)
    unit: int = 10 ** max(len(str(more)) - 2, 0)
    return math.ceil(more / unit) * unit


def granting(cell: Cell) -> Cell:
    return cell._replace(steps=granted(cell.steps))


RATES = [digit * 10.0**power for power in range(-3, 2) for digit in (1, 2, 5)]
LENGTHS = [round(10 * 1.25**power) for power in range(23)]


def best(expression: str, name: str) -> Cell | None:
    """The cell of the fewest steps, among learning rates that are 1, 2 and 5 times a power of 10."""
    for steps in LENGTHS:
        cells = [Cell(granted(steps), rate) for rate in RATES]
        found = [cell._replace(steps=fewest(expression, name, cell)) for cell in cells]
        solving = [cell for cell in found if 0 < cell.steps <= steps]
        fit = [cell for cell in solving if fits(expression, name, granting(cell))]
        if fit:
            return min(fit)
    return None


def measured(expression: str, name: str, cell: Cell | str, *, anew: bool) -> Cell | str:
    """A cell with the fewest steps."""
    if anew:
        return best(expression, name) or "not solved"
    if isinstance(cell, str):
        return cell
    steps = fewest(expression, name, cell)
    return cell._replace(steps=steps) if steps else "not solved"


def main(names: list[str], *, anew: bool = False) -> None:
    """Print rows for the table, each with the fewest steps behind it, of which it grants a fifth more."""
    for row in rows(TABLE.read_text()):
        if names and row.name not in names:
            continue
        found = {name: measured(row.expression, name, cell, anew=anew) for name, cell in row.cells.items()}
        cells = {name: cell if isinstance(cell, str) else granting(cell) for name, cell in found.items()}
        least = [cell.steps for cell in found.values() if isinstance(cell, Cell)]
        print(row._replace(cells=cells), "of", ", ".join(map(str, least)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="optimizers; all by default")
    parser.add_argument(
        "--rates", action="store_true", help="also look for the best learning rates, 1, 2 or 5 times 10**n"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        quicken(Path(folder))
        main(arguments.names, anew=arguments.rates)
