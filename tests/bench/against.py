"""Time a step of this checkout against one of another checkout, in turn: what a change of the library costs.

python tests/bench/against.py ../before          # a folder with another commit, such as a git worktree
python tests/bench/against.py ../before --eager  # updates that are not compiled, on many small leaves
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[2]


class Worker:
    """A process that makes steps with one checkout when it is asked to."""

    def __init__(self, checkout: Path, workload: str, eager: bool) -> None:
        command = [sys.executable, __file__, "--work", workload, *(["--eager"] if eager else [])]
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=checkout
        )
        self.round()

    def round(self) -> float:
        """Seconds of a step, the median of a few."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(json.loads(self.process.stdout.readline()))

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def work(name: str, eager: bool) -> None:
    """Answer each line of the input with the time of a step."""
    import mlx.core as mx
    import run

    import mlxopt as mo

    step: Any
    if eager:
        tx = run.adamw()
        params = {f"layer{index}": mx.ones((16,)) for index in range(int(name))}
        grads, state = mo.tree.scale(0.5, params), tx.init(params)

        def step() -> Any:
            nonlocal state
            started = time.perf_counter()
            updates, state = tx.update(grads, state, params)
            moved = mo.apply_updates(params, updates)
            seconds = time.perf_counter() - started
            mx.eval(moved, state)
            return seconds

    else:
        [workload] = [workload for workload in run.WORKLOADS if workload.name == name]
        ours = run.Ours(workload)

        def step() -> Any:
            started = time.perf_counter()
            ours.dispatch()
            ours.finish()
            return time.perf_counter() - started

    for _ in sys.stdin:
        print(statistics.median(step() for _ in range(5)), flush=True)


def compare(other: Path, names: list[str], rounds: int, eager: bool) -> None:
    """Print the two times and their ratio, the median of the rounds with its quartiles."""
    print("| workload | this ms | other ms | ratio (quartiles) |\n| --- | --- | --- | --- |")
    for name in names:
        workers = [Worker(checkout, name, eager) for checkout in (HERE, other.resolve())]
        times = []
        for index in range(rounds):  # each goes first in every other round: the first is a little slower
            turn = workers if index % 2 else workers[::-1]
            measured = [worker.round() for worker in turn]
            times.append(measured if index % 2 else measured[::-1])
        for worker in workers:
            worker.stop()
        this, that = (statistics.median(column) for column in zip(*times, strict=True))
        low, middle, high = statistics.quantiles([one / two for one, two in times], n=4)
        print(f"| {name} | {1e3 * this:.2f} | {1e3 * that:.2f} | {middle:.2f} ({low:.2f}-{high:.2f}) |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, nargs="?", help="folder of the other checkout")
    parser.add_argument("--only", default="", help="workloads whose name holds this")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--eager", action="store_true", help="time the calls of updates that are not compiled")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        work(options.work, options.eager)
        return
    if options.other is None or not (options.other / "mlxopt").is_dir():
        parser.error("other must be a folder that holds mlxopt: git worktree add ../before <commit>")
    import run

    names = ["10", "100", "400"] if options.eager else [workload.name for workload in run.WORKLOADS]
    compare(options.other, [name for name in names if options.only in name], options.rounds, options.eager)


if __name__ == "__main__":
    main()
