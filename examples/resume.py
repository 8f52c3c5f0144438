"""Kill a training run and resume it from its checkpoint: it ends as if nobody had killed it."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx

import mlxopt as mo

STEPS = 600


def loss_fn(params: dict[str, mx.array], x: mx.array, y: mx.array) -> mx.array:
    return mx.mean(mx.square(mx.tanh(x @ params["inner"].T) @ params["outer"] - y))


def batch(key: mx.array) -> tuple[mx.array, mx.array]:
    """Points, and a wave over them with some noise."""
    points_key, noise_key = mx.random.split(key)
    x = mx.random.uniform(-3.0, 3.0, (64, 1), key=points_key)
    y = mx.sin(2 * x[:, 0]) + 0.1 * mx.random.normal((64,), key=noise_key)
    return mx.concatenate([x, mx.ones_like(x)], axis=1), y


def train(file: Path, steps: int, every: int) -> Any:
    """Train up to ``steps``, from the checkpoint if there is one, and save everything the run depends on."""
    tx = mo.chain(mo.clip_by_global_norm(1.0), mo.adamw(mo.cosine_decay(0.05, steps), weight_decay=0.0))
    inner_key, outer_key, data_key = mx.random.split(mx.random.key(0), 3)
    params = {"inner": mx.random.normal((32, 2), key=inner_key), "outer": mx.random.normal((32,), key=outer_key) / 6}
    run: dict[str, Any] = {"params": params, "state": tx.init(params), "key": data_key, "step": 0}
    if file.exists():
        run = mo.checkpoint.load(file, like=run)

    step = mo.compile_step(loss_fn, tx)
    print(f"  starts after step {run['step']}")
    while run["step"] < steps:
        key, batch_key = mx.random.split(run["key"])
        params, state, loss = step(run["params"], run["state"], *batch(batch_key))
        run = {"params": params, "state": state, "key": key, "step": run["step"] + 1}
        mx.eval(run)
        if run["step"] % every == 0:
            mo.checkpoint.save(file, run, metadata={"loss": loss.item()})
        if run["step"] % (steps // 6) == 0:
            print(f"  step {run['step']:4d}  loss {loss.item():.6f}", flush=True)
    return run


def kill_midway(file: Path, steps: int, every: int) -> None:
    """Start the same training in a process of its own, and kill it after two thirds of the way."""
    command = [sys.executable, __file__, str(file), str(steps), str(every)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="")
            if f"step {steps * 2 // 3:4d}" in line:
                process.kill()
                break


def main(steps: int = STEPS, every: int = 70) -> bool:
    """Train without and with a kill, and say whether both runs end with the same numbers."""
    with tempfile.TemporaryDirectory() as folder:
        print("A run that nobody kills")
        whole = train(Path(folder, "whole.safetensors"), steps, every)

        file = Path(folder, "killed.safetensors")
        print("\nThe same run in another process")
        kill_midway(file, steps, every)
        found = mo.checkpoint.contents(file)
        print(f"  killed; its checkpoint holds step {found.numbers['step']} and a loss of {found.metadata['loss']:.6f}")

        print("\nResumed")
        resumed = train(file, steps, every)

    pairs = list(zip(mo.tree.items(whole), mo.tree.leaves(resumed), strict=True))
    different = [path for (path, one), other in pairs if not mx.array_equal(mx.array(one), mx.array(other))]
    print(f"\n{len(pairs) - len(different)} of {len(pairs)} arrays and numbers are the same.")
    return not different


if __name__ == "__main__":
    if sys.argv[1:]:
        train(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
