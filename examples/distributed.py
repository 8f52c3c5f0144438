"""One program for one process or many: gradients averaged, memory shared out, stopped on two ranks, resumed by four.

    python examples/distributed.py                                               # alone
    mlx.launch -n 2 --backend ring -- python examples/distributed.py --until 150  # the first half by two ranks
    mlx.launch -n 4 --backend ring -- python examples/distributed.py              # the rest by four

With ``--hostfile`` the launcher starts it on other machines; nothing else changes.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx
from quickstart import logits, loss_fn, network, spirals

import mlxopt as mo
from mlxopt import distributed

STEPS, EVERY, BATCH = 300, 50, 128
FOLDER = Path(tempfile.gettempdir()) / "mlxopt-distributed"


def main(until: int = STEPS, folder: str = str(FOLDER)) -> float:
    """Train until some step, from the checkpoint in the folder if there is one; returns the share of right answers."""
    group = mx.distributed.init()
    rank, size = group.rank(), group.size()

    def say(*words: object) -> None:
        if rank == 0:
            print(*words, flush=True)

    data_key, test_key, init_key = mx.random.split(mx.random.key(0), 3)
    x, y = spirals(1000, data_key)
    params = distributed.replicate(network([2, 64, 64, 1], init_key), group)
    schedule = mo.warmup_cosine_decay_schedule(0.0, 1e-2, STEPS // 10, STEPS)
    adamw = mo.adamw(schedule, weight_decay=1e-3)
    tx = mo.chain(mo.clip_by_global_norm(1.0), distributed.shard(adamw, group, by="element"))

    run: dict[str, Any] = {"params": params, "state": tx.init(params), "step": 0}
    kept = mo.tree.nbytes(run["state"]) / mo.tree.nbytes(params)
    say(f"{size} rank{'s' * (size > 1)}, of which the first keeps a state {kept:.2f} times the size of the parameters")
    if Path(folder).exists():
        with distributed.deadline(60.0):
            run = distributed.load(folder, run, group)
        say(f"goes on from step {run['step']} of {folder}")

    step = mo.compile_step(loss_fn, tx, group=group)
    while run["step"] < until:
        rows = mx.random.randint(0, len(x), (BATCH,), key=mx.random.key(run["step"]))[rank::size]
        with distributed.deadline(60.0):
            params, state, loss = step(run["params"], run["state"], x[rows], y[rows])
            mx.eval(params, state, loss)
        run = {"params": params, "state": state, "step": run["step"] + 1}
        if run["step"] % EVERY == 0 or run["step"] == until:
            with distributed.deadline(60.0):
                distributed.check_replicas(params, group)
                distributed.save(folder, run, group)
            say(f"step {run['step']:4d}  loss {loss.item():.4f}  saved")

    test_x, test_y = spirals(1000, test_key)
    right = float(mx.mean((logits(run["params"], test_x) > 0) == (test_y > 0)))
    say(f"{100 * right:.1f} % of new points are told apart after {run['step']} steps")
    return right


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--until", type=int, default=STEPS, help="last step")
    parser.add_argument("--folder", default=str(FOLDER), help="where checkpoints are, seen by all ranks")
    options = parser.parse_args()
    main(options.until, options.folder)
