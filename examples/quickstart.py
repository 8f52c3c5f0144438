"""Tell two interleaved spirals apart: a small network, a chain of transformations, one compiled step."""

import textwrap
from typing import Any

import mlx.core as mx

import mlxopt as mo

STEPS = 1500


def spirals(points: int, key: mx.array) -> tuple[mx.array, mx.array]:
    """Points on two spirals that wind round each other one and a half times, and which of the two each is on."""
    turn = mx.random.uniform(0.1, 1.0, (points,), key=key)
    side = mx.arange(points) % 2
    angle = 3 * mx.pi * turn + mx.pi * side
    return mx.stack([turn * mx.cos(angle), turn * mx.sin(angle)], axis=1), side.astype(mx.float32)


def network(sizes: list[int], key: mx.array) -> list[dict[str, mx.array]]:
    """Weights and biases of a fully connected network."""
    layers = []
    for inputs, outputs, layer_key in zip(sizes, sizes[1:], mx.random.split(key, len(sizes) - 1), strict=False):
        weight = mx.random.normal((outputs, inputs), key=layer_key) * (2 / inputs) ** 0.5
        layers.append({"weight": weight, "bias": mx.zeros((outputs,))})
    return layers


def logits(params: list[dict[str, mx.array]], x: mx.array) -> mx.array:
    """What the network says of points: above zero for the second spiral."""
    for layer in params[:-1]:
        x = mx.tanh(x @ layer["weight"].T + layer["bias"])
    return (x @ params[-1]["weight"].T + params[-1]["bias"]).squeeze(-1)


def loss_fn(params: list[dict[str, mx.array]], x: mx.array, y: mx.array) -> mx.array:
    """Cross entropy."""
    z = logits(params, x)
    return mx.mean(mx.logaddexp(0.0, z) - y * z)


def picture(params: list[dict[str, mx.array]], x: mx.array, y: mx.array) -> str:
    """A map of what the network says (. and :), with the points of both spirals (o and #)."""
    rows, columns = 23, 46
    across, down = mx.linspace(-1.1, 1.1, columns), mx.linspace(1.1, -1.1, rows)
    grid = mx.stack(list(mx.meshgrid(across, down)), axis=-1).reshape(-1, 2)
    signs: Any = (logits(params, grid) > 0).reshape(rows, columns).tolist()
    canvas = [[":" if sign else "." for sign in row] for row in signs]
    points: Any = mx.concatenate([x, y[:, None]], axis=1).tolist()
    for px, py, side in points:
        canvas[round((1.1 - py) / 2.2 * (rows - 1))][round((px + 1.1) / 2.2 * (columns - 1))] = "#" if side else "o"
    return "\n".join("".join(row) for row in canvas)


def written_out(expression: str, width: int = 80) -> str:
    """An expression over several lines: if it is too long, every argument gets lines of its own."""
    head, _, rest = expression.partition("(")
    if len(expression) <= width or not rest:
        return expression
    arguments, depth = [""], 0
    for letter in rest[:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            arguments.append("")
        else:
            arguments[-1] += letter
    lines = "".join(written_out(argument.strip(), width - 5) + ",\n" for argument in arguments)
    return f"{head}(\n{textwrap.indent(lines, '    ')})"


def main(steps: int = STEPS) -> float:
    """Train, show how it goes, and return the share of new points that are classified correctly."""
    data_key, test_key, init_key = mx.random.split(mx.random.key(0), 3)
    x, y = spirals(400, data_key)
    params = network([2, 64, 64, 1], init_key)

    tx = mo.chain(
        mo.clip_by_global_norm(1.0),
        mo.scale_by_adam(),
        mo.add_decayed_weights(1e-3, mask=mo.by_path("*.weight")),
        mo.scale_by_learning_rate(mo.warmup_cosine_decay_schedule(0.0, 1e-2, steps // 10, steps)),
    )
    print(f"{written_out(repr(tx))}\n\n{'step':>5} {'loss':>9} {'gradient':>9} {'rate':>9}")

    state = tx.init(params)
    step = mo.compile_step(loss_fn, tx)
    for index in range(1, steps + 1):
        params, state, loss = step(params, state, x, y)
        mx.eval(params, state)
        if index % (steps // 10) == 0:
            norm, rate = mo.tree.get(state, "global_norm"), mo.tree.get(state, "learning_rate")
            print(f"{index:5d} {loss.item():9.5f} {norm.item():9.5f} {rate.item():9.2g}", flush=True)

    new_x, new_y = spirals(1000, test_key)
    accuracy = float(mx.mean((logits(params, new_x) > 0) == new_y))
    print(f"\n{picture(params, x, y)}\n\n{accuracy:.1%} of 1000 new points are classified correctly.")
    return accuracy


if __name__ == "__main__":
    main()
