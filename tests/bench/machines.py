"""What several ranks send, keep and wait for: ``python tests/bench/machines.py``.

The ranks are processes on this machine, joined by MLX's ring over the loopback address. Every contender makes a step
in turn, round after round; times are medians of the rounds with their quartiles. Bytes are those that the kernel counts
on the loopback address, of all ranks together and with the headers of TCP, in units of the parameters. What a rank
keeps is the state of AdamW, in the same units: 2 if nothing is shared out.

``--model`` prints what a message costs here, and what that model of it predicts for other machines.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx

sys.path.append(str(Path(__file__).parents[1]))  # of a rank, which imports this file by its name, too

from ranks import World

import mlxopt as mo
from mlxopt import distributed
from mlxopt.base import GradientTransformation

LAYERS, WIDTH, WORDS = 4, 256, 8192
EVERY = 10
MEGABYTE = 2**20

Make = Callable[[mx.distributed.Group], tuple[GradientTransformation, Any]]


def parameters() -> dict[str, Any]:
    """Those of a small language model."""

    def filled(*shape: int) -> mx.array:
        return mx.full(shape, 0.01)

    def layer() -> dict[str, mx.array]:
        attention = {name: filled(WIDTH, WIDTH) for name in ("query", "key", "value", "out")}
        return {**attention, "up": filled(4 * WIDTH, WIDTH), "down": filled(WIDTH, 4 * WIDTH), "norm": filled(WIDTH)}

    return {"embedding": filled(WORDS, WIDTH), "layers": [layer() for _ in range(LAYERS)], "norm": filled(WIDTH)}


CONTENDERS: dict[str, Make] = {
    "alone, nothing sent": lambda group: (mo.adamw(1e-3), None),
    "averaged": lambda group: (mo.adamw(1e-3), group),
    "averaged, in bfloat16": lambda group: (mo.adamw(1e-3), distributed.Exchange(group, wire=mx.bfloat16)),
    "shard by leaf": lambda group: (distributed.shard(mo.adamw(1e-3), group), group),
    "shard by element": lambda group: (distributed.shard(mo.adamw(1e-3), group, by="element"), group),
}


class Row(NamedTuple):
    """What was measured of a contender."""

    name: str
    times: list[float]
    sent: float
    kept: float


def bytes_sent() -> int:
    """All that has gone over the loopback address."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[9]) for line in lines if line.strip().startswith("lo:"))


def rounds(group: mx.distributed.Group, number: int) -> list[Row]:
    """Steps of all contenders in turn; on rank 0 what they took."""
    params = parameters()
    size = mo.tree.nbytes(params)
    grads = mo.tree.full_like(params, 1e-3 * (1 + group.rank()))
    rows, steps = [], []
    for name, make in CONTENDERS.items():
        tx, together = make(group)
        state = tx.init(params)
        rows.append(Row(name, [], 0.0, mo.tree.nbytes(state) / size))
        steps.append(one_by_one(mo.compile_update(tx, group=together), grads, state, params))
    local = distributed.local_steps(EVERY, group=group)
    rows.append(Row(f"local steps, {EVERY} and their meeting", [], 0.0, 2 + 2))
    steps.append(several(mo.compile_update(mo.adamw(1e-3)), local, grads, mo.adamw(1e-3).init(params), params))
    for step in steps:
        step()
    for _ in range(number):
        for index, step in enumerate(steps):
            barrier(group)
            before, begin = bytes_sent(), time.perf_counter()
            step()
            barrier(group)
            rows[index].times.append(1e3 * (time.perf_counter() - begin))
            rows[index] = rows[index]._replace(sent=(bytes_sent() - before) / size)
    return rows


def one_by_one(update: Callable[..., Any], grads: Any, state: Any, params: Any) -> Callable[[], None]:
    run = [state, params]

    def step() -> None:
        run[1], run[0] = update(grads, run[0], run[1])
        mx.eval(run)

    return step


def several(update: Callable[..., Any], local: Any, grads: Any, state: Any, params: Any) -> Callable[[], None]:
    """As many steps as there are from one meeting to the next."""
    run = [state, params, local.init(params)]

    def steps() -> None:
        for _ in range(EVERY):
            run[1], run[0] = update(grads, run[0], run[1])
            run[1], run[2] = local(run[1], run[2])
            mx.eval(run)

    return steps


def barrier(group: mx.distributed.Group) -> None:
    distributed.check_replicas({"w": mx.zeros((1,))}, group)


def messages(group: mx.distributed.Group, repeats: int) -> tuple[float, float]:
    """Seconds for a sum of one element, and of 64 MiB."""

    def seconds(size: int, repeats: int) -> float:
        array = mx.ones((size,))
        taken = []
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            mx.eval(mx.distributed.all_sum(array + 1, group=group))
            taken.append(time.perf_counter() - begin)
        return statistics.median(taken[1:])

    return seconds(1, repeats), seconds(16 * MEGABYTE, 5)


def predicted(size: int, nbytes: float, latency: float, bandwidth: float) -> float:
    """Milliseconds of a sum by a ring: each rank sends 2(N - 1) parts of 1/N to its neighbour, one after the other."""
    return 1e3 * 2 * (size - 1) * (latency + nbytes / size / bandwidth)


def show_model() -> None:
    print("| ranks here | one element, ms | 64 MiB, ms | latency a hop, us | bandwidth of a link, GB/s |")
    print("| --- | --- | --- | --- | --- |")
    for size in (2, 4):
        with World(size) as world:
            small, large = world.run(messages, 50, deadline=120.0)[0]
        hops = 2 * (size - 1)
        latency = small / hops
        bandwidth = 64 * MEGABYTE / size / (large / hops - latency)
        print(f"| {size} | {1e3 * small:.2f} | {1e3 * large:.0f} | {1e6 * latency:.0f} | {bandwidth / 1e9:.1f} |")
    print("\n| machines | assumed latency, us | GB/s | parameters | averaged float32, ms | shard (and gather), ms |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, size, latency, bandwidth in MACHINES:
        for millions in (100, 1000):
            nbytes = 4e6 * millions
            mean = predicted(size, nbytes, latency, bandwidth)
            gather = mean / 2
            row = [
                name,
                f"{1e6 * latency:g}",
                f"{bandwidth / 1e9:g}",
                f"{millions}M",
                f"{mean:.0f}",
                f"{mean + gather:.0f}",
            ]
            print(f"| {' | '.join(row)} |")


MACHINES = [
    ("8 Macs, Thunderbolt 5, ring", 8, 60e-6, 6e9),
    ("64 GPUs, 400 Gb/s, NCCL", 64, 15e-6, 45e9),
]
"""Name, ranks, seconds and bytes a second of a hop: what vendors promise less a quarter; not measured here."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="steps of every contender")
    parser.add_argument("--model", action="store_true", help="what a message costs, here and elsewhere")
    options = parser.parse_args()
    if options.model:
        show_model()
        return
    print(f"{mo.tree.size(parameters()) / 1e6:.1f}M parameters in {len(mo.tree.leaves(parameters()))} leaves\n")
    print("| ranks | contender | ms (quartiles) | sent, x parameters | kept by a rank |")
    print("| --- | --- | --- | --- | --- |")
    for size in (2, 4):
        with World(size) as world:
            for row in world.run(rounds, options.rounds, deadline=300.0)[0]:
                low, middle, high = statistics.quantiles(row.times, n=4)
                print(
                    f"| {size} | {row.name} | {middle:.0f} ({low:.0f}-{high:.0f}) | {row.sent:.2f} | {row.kept:.2f} |"
                )


if __name__ == "__main__":
    import machines

    machines.main()  # under the name by which ranks import it
