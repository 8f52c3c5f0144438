"""Golden trajectories: float64 runs of independent implementations, held to 1e-5 of the largest value of each leaf.

The data come from optax, torch.optim, mlx.optimizers and authors' repositories (versions in trajectories.json); a name
holds ``<case>:params.<step>.<path>`` or ``<case>:updates.<step>.<path>``.
"""

import functools
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

import mlxopt as mo
from mlxopt import tree
from mlxopt.base import GradientTransformation, Params, State

FOLDER = Path(__file__).parent / "reference"
CASES: dict[str, dict[str, Any]] = {
    case["name"]: case for case in json.loads((FOLDER / "trajectories.json").read_text())
}
RTOL = 1e-5

MATRICES = mo.by_path("w", "conv", "blocks.*.w")
LABELS = {"w": "mat", "b": "vec", "conv": "rest", "scale": "rest", "blocks": "mat"}


def is_flat(path: str, leaf: mx.array) -> bool:
    del path
    return leaf.ndim == 2


def muon_by_hand(learning_rate: float, *momentum: GradientTransformation, weight_decay: float = 0.0) -> Any:
    """The rule of Muon's authors and of MLX, whose factor looks at the last two axes, for a kernel too."""

    def scaled(u: mx.array, p: mx.array | None) -> mx.array:
        del p
        return u * max(1.0, u.shape[-2] / u.shape[-1]) ** 0.5 if u.ndim > 1 else u

    return mo.chain(
        *momentum,
        mo.orthogonalize(eps=1e-7),
        mo.stateless_with_tree_map(scaled),
        mo.add_decayed_weights(weight_decay),
        mo.scale_by_learning_rate(learning_rate),
    )


ZOOM_OF_OPTAX = mo.scale_by_zoom_linesearch(20, initial_guess_strategy="one", interpolation="values")
MUON_MOMENTUM = mo.ema(0.95, debias=False, nesterov=True)


SCHEDULE_FREE_WARMUP = mo.linear_schedule(0.0125, 0.05, 3)


def optax_schedule_free(learning_rate: Any) -> GradientTransformation:
    """Optax weighs each step by the learning rate of the next one."""
    direction = mo.scale_by_rms(0.999, 1e-6, eps_in_sqrt=False, bias_correction=True)
    inner = mo.chain(direction, mo.add_decayed_weights(0.1), mo.scale_by_learning_rate(learning_rate))
    return mo.schedule_free(inner, mo.shifted(learning_rate, 1))


def muon_of_jax(learning_rate: float, otherwise: GradientTransformation | None = None, **settings: Any) -> Any:
    """Optax's Muon, which takes the first axis of a matrix for its inputs."""
    across = mo.stateless_with_tree_map(lambda u, p: u * max(1.0, u.shape[1] / u.shape[0]) ** 0.5)
    by_muon = mo.chain(mo.scale_by_muon(**settings), across, mo.scale_by_learning_rate(learning_rate))
    return mo.partition(
        {"matrix": by_muon, "other": otherwise or mo.nadam(learning_rate)},
        lambda path, leaf: "matrix" if leaf.ndim == 2 else "other",
    )


def agc_of_jax(clipping: float) -> GradientTransformation:
    """Adaptive clipping by optax's layout: the last axis of a matrix or a kernel counts output units."""
    return mo.partition(
        {ndim: mo.adaptive_grad_clip(clipping, axis=tuple(range(ndim - 1)) if ndim > 1 else None) for ndim in range(5)},
        lambda path, leaf: leaf.ndim,
    )


def proximal(learning_rate: float, weight_decay: float) -> GradientTransformation:
    """Weight decay as a division of the new parameters, as Adan's authors have it."""
    share = learning_rate * weight_decay
    return mo.stateless(lambda updates, params: tree.map(lambda u, p: (u - share * p) / (1 + share), updates, params))


def eps_of_transformers(eps: float, b2: float) -> Callable[[Any], Any]:
    """An epsilon that is added to the root before its bias correction, as transformers' AdamW and its kin have it."""
    return lambda count: eps * mx.rsqrt(mo.bias_correction(b2, mx.array(count) + 1))


def starting_with(tx: GradientTransformation, **memory: float) -> GradientTransformation:
    """A transformation whose memory of these names holds numbers other than its own before the first update."""

    def init(params: Params) -> Any:
        state = tx.init(params)
        full = {name: tree.full_like(tree.get(state, name), value) for name, value in memory.items()}
        return tree.set(state, full)

    return GradientTransformation(init, tx.update, inner=[tx], as_stored=True)


def l2(weight_decay: float, tx: GradientTransformation) -> GradientTransformation:
    """Weight decay added to the gradient, as PyTorch's ``weight_decay`` of SGD, Adam and Adagrad."""
    return mo.chain(mo.add_decayed_weights(weight_decay), tx)


def by_label(transforms: dict[str, GradientTransformation]) -> GradientTransformation:
    return mo.partition({**transforms, "rest": mo.set_to_zero()}, LABELS)


SQUARED = mo.stateless_with_tree_map(lambda u, p: mx.square(u))


def curvature() -> Params:
    """The diagonal of the Hessian of the quadratic problem."""
    inputs = tensors("inputs_quadratic")
    return tree.map(lambda a, p: mx.diag(a).reshape(p.shape), nested(inputs, "A"), nested(inputs, "params"))


def adam_of_transformers(b1: float = 0.9) -> GradientTransformation:
    """Adam whose epsilon is added to the root before its bias correction."""
    eps = lambda count: 1e-6 * mx.rsqrt(mo.bias_correction(0.999, count + 1))  # noqa: E731
    return mo.inject_hyperparams(mo.scale_by_adam)(b1, eps=eps)


SAME: dict[str, Callable[[], GradientTransformation]] = {
    "dadaptation.adam": lambda: mo.dadapt_adam(estim_lr0=1e-3),
    "dadaptation.adam.decoupled": lambda: mo.dadapt_adamw(estim_lr0=1e-3, weight_decay=0.1),
    "dadaptation.sgd": lambda: mo.dadapt_sgd(estim_lr0=0.01),
    "mlx.adadelta": lambda: mo.adadelta(1.0),
    "mlx.adafactor": lambda: mo.adafactor(min_dim_size_to_factor=1, axes="last"),
    "mlx.adafactor.lr": lambda: mo.adafactor(0.05, 1, momentum=0.9, axes="last"),
    "mlx.adagrad": lambda: mo.adagrad(0.1, 0.0, 1e-8, eps_in_sqrt=False),
    "mlx.adam": lambda: mo.adam(0.02, bias_correction=False),
    "mlx.adam.bias_correction": lambda: mo.adam(0.05),
    "mlx.adamax": lambda: mo.adamax(0.02, bias_correction=False),
    "mlx.adamw": lambda: mo.adamw(0.02, bias_correction=False),
    "mlx.adamw.bias_correction": lambda: mo.adamw(0.05, weight_decay=0.1),
    "mlx.adamw.quadratic": lambda: mo.adamw(0.1, weight_decay=0.05),
    "mlx.clip_grad_norm_sgd": lambda: mo.chain(mo.clip_by_global_norm(2.0), mo.sgd(0.1, momentum=0.9)),
    "mlx.lion": lambda: mo.lion(0.01, weight_decay=0.0),
    "mlx.multi_optimizer": lambda: mo.partition(
        {"matrix": mo.adamw(0.02, weight_decay=0.1, bias_correction=False), "other": mo.sgd(0.1, momentum=0.9)},
        lambda path, leaf: "matrix" if leaf.ndim >= 2 else "other",
    ),
    "mlx.muon": lambda: muon_by_hand(0.02, mo.add_decayed_weights(0.01), MUON_MOMENTUM),
    "mlx.muon.no_nesterov": lambda: muon_by_hand(0.02, mo.ema(0.95, debias=False)),
    "mlx.rmsprop": lambda: mo.rmsprop(0.01, decay=0.99, eps_in_sqrt=False),
    "mlx.sgd": lambda: mo.sgd(0.05, momentum=0.9),
    "mlx.sgd.nesterov": lambda: l2(0.05, mo.sgd(0.05, momentum=0.9, nesterov=True)),
    "optax.adabelief.default": lambda: mo.adabelief(0.02),
    "optax.adabelief.nesterov": lambda: mo.adabelief(0.02, b2=0.99, eps=1e-6, nesterov=True),
    "optax.adabelief.wd": lambda: mo.adabelief(0.02, eps=1e-6, eps_root=1e-12, weight_decay=0.1, mask=MATRICES),
    "optax.adadelta": lambda: mo.adadelta(1.0, rho=0.9, eps=1e-6),
    "optax.adafactor.default": lambda: mo.adafactor(0.05),
    "optax.adafactor.factored": lambda: mo.adafactor(0.05, 2),
    "optax.adafactor.momentum_wd": lambda: mo.adafactor(0.05, 2, momentum=0.9, weight_decay=0.001 / 0.05),
    "optax.adafactor.relative": lambda: mo.adafactor(1.0, 2),
    "optax.adagrad": lambda: mo.adagrad(0.1),
    "optax.adam.default": lambda: mo.adam(0.05),
    "optax.adam.eps": lambda: mo.adam(0.03, b1=0.8, b2=0.95, eps=0.01, eps_root=1e-4),
    "optax.adam.nesterov": lambda: mo.adam(0.05, nesterov=True),
    "optax.adam.quadratic": lambda: mo.adam(0.1),
    "optax.adam.schedule": lambda: mo.adam(mo.cosine_decay_schedule(0.1, 10)),
    "optax.adamax": lambda: mo.adamax(0.03),
    "optax.adamaxw": lambda: mo.adamaxw(0.03, weight_decay=0.05, mask=MATRICES),
    "optax.adamw.default_wd": lambda: mo.adamw(0.05, weight_decay=1e-4),
    "optax.adamw.mask": lambda: mo.adamw(0.05, weight_decay=0.1, mask=MATRICES),
    "optax.adamw.quadratic": lambda: mo.adamw(0.1, weight_decay=0.05),
    "optax.adaptive_grad_clip": lambda: agc_of_jax(0.1),
    "optax.adaptive_grad_clip.axis": lambda: mo.adaptive_grad_clip(0.1),
    "optax.add_decayed_weights": lambda: mo.add_decayed_weights(0.1, mask=MATRICES),
    "optax.amsgrad.default": lambda: mo.amsgrad(0.05),
    "optax.amsgrad.raw_nu": lambda: mo.amsgrad(0.05, b2=0.95, bias_correction_nu=False),
    "optax.apply_every": lambda: mo.apply_every(3),
    "optax.apply_if_finite": lambda: mo.apply_if_finite(mo.adam(0.1), 3),
    "optax.centralize": mo.centralize,
    "optax.conditionally_mask": lambda: mo.conditionally_mask(mo.trace(0.9), lambda step: step % 3 == 0),
    "optax.conditionally_transform": lambda: mo.conditionally_transform(mo.trace(0.9), lambda step: step % 3 == 0),
    "optax.multi_steps.mean": lambda: mo.multi_steps(mo.adam(0.1), 3),
    "optax.multi_steps.schedule": lambda: mo.multi_steps(mo.adam(0.1), lambda step: mx.where(step < 2, 2, 4)),
    "optax.multi_steps.skip_large": lambda: mo.multi_steps(
        mo.sgd(0.1), 2, should_skip=functools.partial(mo.skip_large_updates, max_squared_norm=12.0)
    ),
    "optax.multi_steps.skip_nonfinite": lambda: mo.multi_steps(mo.adam(0.1), 2, should_skip=mo.skip_not_finite),
    "optax.multi_steps.sum": lambda: mo.multi_steps(mo.sgd(0.1, momentum=0.9), 4, use_grad_mean=False),
    "optax.chain.add_decayed_weights": lambda: mo.chain(
        mo.add_decayed_weights(mo.linear_schedule(0.0, 0.2, 8)), mo.sgd(0.1)
    ),
    "optax.chain.agc_sgd": lambda: mo.chain(agc_of_jax(0.05), mo.sgd(0.1, momentum=0.9)),
    "optax.chain.centralize_sgd": lambda: mo.chain(mo.centralize(), mo.sgd(0.1, momentum=0.9)),
    "optax.chain.ldog": lambda: mo.chain(mo.scale_by_distance_over_gradients(0.1), mo.scale_by_learning_rate(1.0)),
    "optax.chain.clip_adamw": lambda: mo.chain(mo.clip_by_global_norm(2.0), mo.adamw(0.05, weight_decay=0.1)),
    "optax.chain.ema_adam": lambda: mo.chain(mo.adam(0.05), mo.ema(0.8)),
    "optax.chain.nonnegative": lambda: mo.chain(mo.adam(0.1), mo.keep_params_nonnegative()),
    "optax.chain.nonnegative_quadratic": lambda: mo.chain(mo.sgd(0.2), mo.keep_params_nonnegative()),
    "optax.chain.trust_ratio": lambda: mo.chain(
        mo.trace(0.9), mo.scale_by_trust_ratio(trust_coefficient=0.1), mo.scale_by_learning_rate(0.5)
    ),
    "optax.clip": lambda: mo.clip(0.2),
    "optax.clip_by_block_rms": lambda: mo.clip_by_block_rms(0.1),
    "optax.clip_by_global_norm": lambda: mo.clip_by_global_norm(3.0),
    "optax.contrib.dpsgd.no_noise": lambda: mo.sgd(0.1, momentum=0.9),
    "optax.chain.reduce_on_plateau": lambda: mo.chain(mo.sgd(0.1), mo.reduce_on_plateau(0.5, 2, rtol=0.01)),
    "optax.contrib.mechanize.adam": lambda: mo.mechanize(mo.adam(1.0)),
    "optax.contrib.mechanize.sgd": lambda: mo.mechanize(mo.sgd(1.0), s_init=0.01),
    "optax.contrib.normalize": mo.normalize,
    "optax.contrib.sam.opaque": lambda: mo.sam(mo.sgd(0.1), rho=0.1),
    "optax.contrib.sam.transparent": lambda: mo.alternating_sam(mo.sgd(0.1), rho=0.1),
    "optax.normalize_by_update_norm": lambda: mo.normalize_by_update_norm(2.0),
    "optax.contrib.cocob": mo.cocob,
    "optax.contrib.cocob.quadratic": mo.cocob,
    "optax.contrib.dadapt_adamw": lambda: mo.dadapt_adamw(estim_lr0=1e-3),
    "optax.contrib.dadapt_adamw.quadratic": lambda: mo.dadapt_adamw(estim_lr0=0.01),
    "optax.contrib.dog": lambda: mo.dog(init_step=("heuristic", 0.01)),
    "optax.contrib.dog.quadratic": lambda: mo.dog(init_step=("learning_rate", 0.05)),
    "optax.contrib.dowg": mo.dowg,
    "optax.contrib.dowg.quadratic": lambda: mo.dowg(init_estim_sq_dist=0.01),
    "optax.contrib.prodigy": lambda: mo.prodigy(estim_lr0=1e-3),
    "optax.contrib.prodigy.mask": lambda: mo.prodigy(estim_lr0=0.01, weight_decay=0.2, mask=MATRICES),
    "optax.contrib.prodigy.quadratic": lambda: mo.prodigy(estim_lr0=0.01),
    "optax.contrib.galore": lambda: mo.galore(0.05, 2, 100, side="larger"),
    "optax.contrib.galore.rms": lambda: mo.galore(0.02, 1, 4, inner=mo.scale_by_rms(), side="larger"),
    "optax.contrib.momo": lambda: mo.momo(0.5),
    "optax.contrib.momo.quadratic": mo.momo,
    "optax.contrib.momo_adam": lambda: mo.momo_adam(0.05),
    "optax.contrib.momo_adam.quadratic": lambda: mo.momo_adam(0.2),
    "optax.contrib.sophia": lambda: mo.sophia(
        0.02, weight_decay=0.1, gamma=0.1, update_interval=2, hessian_diagonal=SQUARED
    ),
    "optax.contrib.sophia.quadratic": lambda: mo.sophia(
        0.1, gamma=0.5, update_interval=3, hessian_diagonal=mo.stateless(lambda updates, params: curvature())
    ),
    "optax.contrib.muon.adaptive": lambda: muon_of_jax(0.02, adaptive=True),
    "optax.contrib.muon.aol": lambda: muon_of_jax(0.02, preconditioning="aol"),
    "optax.contrib.muon.consistent_rms": lambda: mo.muon(0.05, consistent_rms=0.2, weight_decay=0.1, matrices=is_flat),
    "optax.contrib.muon.default": lambda: muon_of_jax(0.02),
    "optax.contrib.muon.dion_coeffs": lambda: muon_of_jax(0.02, ns_coeffs="dion"),
    "optax.contrib.muon.mlx_layout": lambda: mo.muon(
        0.02, weight_decay=0.1, matrices=is_flat, otherwise=mo.nadamw(0.02, weight_decay=0.05)
    ),
    "optax.contrib.muon.no_nesterov": lambda: muon_of_jax(
        0.02, mo.adam(0.02, b1=0.8, b2=0.95), nesterov=False, ns_steps=3
    ),
    "optax.contrib.schedule_free.adamw": lambda: mo.schedule_free_adamw(0.05),
    "optax.contrib.schedule_free.adamw_wd": lambda: optax_schedule_free(mo.linear_schedule(0.0, 0.05, 4)),
    "optax.contrib.schedule_free.sgd": lambda: mo.schedule_free_sgd(0.1),
    "optax.contrib.schedule_free.sgd_quadratic": lambda: mo.schedule_free_sgd(0.5, b1=0.95),
    "optax.contrib.schedule_free.wrap_adam": lambda: mo.schedule_free(mo.adam(0.05, b1=0.0), 0.05),
    "optax.contrib.acprop": lambda: mo.acprop(1e-3, eps=1e-3, eps_root=1e-6 / (1 - 0.999)),
    "optax.contrib.ademamix": lambda: mo.ademamix(0.02),
    "optax.contrib.ademamix.schedules": lambda: mo.ademamix(
        0.02, b3=mo.linear_schedule(0.9, 0.999, 10), alpha=mo.linear_schedule(0.0, 5.0, 10), weight_decay=0.05
    ),
    "optax.contrib.adopt": lambda: mo.adopt(0.05),
    "optax.contrib.adopt.nesterov": lambda: mo.adopt(0.05, nesterov=True),
    "optax.contrib.adopt.noclip": lambda: mo.adopt(0.02, b2=0.95, use_clipping=False),
    "optax.contrib.madgrad": lambda: mo.madgrad(0.02 + 1e-6),
    "optax.contrib.simplified_ademamix": lambda: mo.simplified_ademamix(1e-3, alpha=2.0),
    "optax.differentially_private_aggregate": mo.identity,
    "optax.ema": lambda: mo.ema(0.9),
    "optax.ema.no_debias": lambda: mo.ema(0.9, debias=False),
    "optax.flatten.adam_clip": lambda: mo.flatten(mo.chain(mo.clip_by_global_norm(2.0), mo.scale_by_adam())),
    "optax.freeze": lambda: mo.freeze(MATRICES),
    "optax.fromage": lambda: mo.fromage(0.05),
    "optax.identity": mo.identity,
    "optax.lamb.default": lambda: mo.lamb(0.05),
    "optax.lamb.wd": lambda: mo.lamb(0.05, weight_decay=0.1, mask=MATRICES),
    "optax.lars.default": lambda: mo.lars(1.0),
    "optax.lars.masks": lambda: mo.lars(1.0, 0.05, MATRICES, 0.02, 1e-3, trust_ratio_mask=MATRICES),
    "optax.lbfgs.backtracking": lambda: mo.lbfgs(memory_size=4, linesearch=mo.scale_by_backtracking_linesearch(15)),
    "optax.lbfgs.no_linesearch": lambda: mo.lbfgs(0.3, 4, linesearch=None),
    "optax.lbfgs.zoom_quadratic": lambda: mo.lbfgs(memory_size=5),
    "optax.lbfgs.zoom_rosenbrock": lambda: mo.lbfgs(memory_size=5, linesearch=ZOOM_OF_OPTAX),
    "optax.linesearch.backtracking": lambda: mo.chain(mo.sgd(1.0), mo.scale_by_backtracking_linesearch(20)),
    "optax.linesearch.zoom": lambda: mo.chain(mo.sgd(1.0), mo.scale_by_zoom_linesearch(15)),
    "optax.lion.default": lambda: mo.lion(0.01),
    "optax.lion.wd": lambda: mo.lion(0.01, b1=0.95, b2=0.98, weight_decay=0.5, mask=MATRICES),
    "optax.lookahead": lambda: mo.lookahead(mo.sgd(0.1, momentum=0.9), 3, 0.5),
    "optax.lookahead.quadratic": lambda: mo.lookahead(mo.sgd(0.3), 4, 0.5),
    "optax.lookahead.reset": lambda: mo.lookahead(mo.adam(0.1), 4, 0.6, reset_state=True),
    "optax.masked": lambda: mo.masked(mo.scale_by_adam(b2=0.9), MATRICES, otherwise="pass"),
    "optax.masked.sgd": lambda: mo.masked(mo.sgd(0.1), MATRICES, otherwise="pass"),
    "optax.nadam": lambda: mo.nadam(0.04),
    "optax.nadamw": lambda: mo.nadamw(0.04, weight_decay=0.02),
    "optax.named_chain": lambda: mo.named_chain(
        ("clip", mo.clip(0.3)),
        ("adam", mo.scale_by_adam()),
        ("wd", mo.add_decayed_weights(0.1)),
        ("lr", mo.scale_by_learning_rate(0.1)),
    ),
    "optax.novograd.default": lambda: mo.novograd(0.02),
    "optax.novograd.wd": lambda: mo.novograd(0.02, 0.9, 0.6, weight_decay=0.05),
    "optax.optimistic_adam": lambda: mo.optimistic_adam(0.02),
    "optax.optimistic_adam_v2": lambda: mo.optimistic_adam(0.02),
    "optax.optimistic_gradient_descent": lambda: mo.optimistic_gradient_descent(0.05),
    "optax.optimistic_gradient_descent.quadratic": lambda: mo.optimistic_gradient_descent(0.05),
    "optax.partition": lambda: by_label(
        {"mat": mo.chain(mo.clip_by_global_norm(0.5), mo.scale_by_adam(b2=0.95)), "vec": mo.trace(0.9)}
    ),
    "optax.partition.opts": lambda: by_label(
        {"mat": mo.adamw(0.05, weight_decay=0.1), "vec": mo.sgd(0.1, momentum=0.9)}
    ),
    "optax.polyak_sgd": lambda: mo.polyak_sgd(0.5),
    "optax.polyak_sgd.quadratic": lambda: mo.polyak_sgd(10.0),
    "optax.polyak_sgd.sps_plus": lambda: mo.polyak_sgd(f_min=1.0, variant="sps+"),
    "optax.radam.default": lambda: mo.radam(0.05),
    "optax.radam.nesterov": lambda: mo.radam(0.05, b2=0.98, nesterov=True),
    "optax.rmsprop.bias_correction": lambda: mo.rmsprop(0.02, bias_correction=True, eps_in_sqrt=False),
    "optax.rmsprop.centered": lambda: mo.rmsprop(0.01, centered=True, eps=1e-4),
    "optax.rmsprop.default": lambda: mo.rmsprop(0.02),
    "optax.rmsprop.momentum": lambda: mo.rmsprop(0.01, momentum=0.9, initial_scale=0.1),
    "optax.rmsprop.nesterov": lambda: mo.rmsprop(0.01, momentum=0.9, nesterov=True, eps_in_sqrt=False),
    "optax.scale": lambda: mo.scale(-0.3),
    "optax.scale_by_adadelta": mo.scale_by_adadelta,
    "optax.scale_by_adam": lambda: mo.scale_by_adam(b1=0.9, b2=0.99),
    "optax.scale_by_adamax": mo.scale_by_adamax,
    "optax.scale_by_amsgrad": lambda: mo.scale_by_amsgrad(b2=0.9),
    "optax.scale_by_belief": lambda: mo.scale_by_belief(eps=1e-6, eps_root=1e-6),
    "optax.scale_by_factored_rms": lambda: mo.scale_by_factored_rms(min_dim_size_to_factor=2),
    "optax.scale_by_learning_rate": lambda: mo.scale_by_learning_rate(mo.linear_schedule(0.5, 0.1, 4)),
    "optax.scale_by_lion": mo.scale_by_lion,
    "optax.scale_by_lion.refined": lambda: mo.scale_by_lion(mode="refined"),
    "optax.scale_by_lion.smooth": lambda: mo.scale_by_lion(mode="smooth", smooth_beta=2.0),
    "optax.scale_by_novograd": mo.scale_by_novograd,
    "optax.scale_by_optimistic_gradient": mo.scale_by_optimistic_gradient,
    "optax.scale_by_param_block_norm": mo.scale_by_param_block_norm,
    "optax.scale_by_param_block_rms": mo.scale_by_param_block_rms,
    "optax.scale_by_polyak": lambda: mo.scale_by_polyak(max_learning_rate=0.4),
    "optax.scale_by_radam": lambda: mo.scale_by_radam(threshold=4.5),
    "optax.scale_by_rms": mo.scale_by_rms,
    "optax.scale_by_rss": mo.scale_by_rss,
    "optax.scale_by_schedule": lambda: mo.scale_by_schedule(mo.polynomial_schedule(1.0, 0.1, 2, 6, 2)),
    "optax.scale_by_sign": mo.scale_by_sign,
    "optax.scale_by_sm3": mo.scale_by_sm3,
    "optax.scale_by_stddev": lambda: mo.scale_by_stddev(eps=1e-4),
    "optax.scale_by_trust_ratio": mo.scale_by_trust_ratio,
    "optax.scale_by_yogi": lambda: starting_with(mo.scale_by_yogi(initial_accumulator_value=1e-3), mu=1e-3),
    "optax.selective_transform": lambda: mo.masked(mo.adam(0.05), ~MATRICES, otherwise="zero"),
    "optax.set_to_zero": mo.set_to_zero,
    "optax.sgd.momentum": lambda: mo.sgd(0.05, momentum=0.9),
    "optax.sgd.nesterov": lambda: mo.sgd(0.05, momentum=0.9, nesterov=True),
    "optax.sgd.plain": lambda: mo.sgd(0.1),
    "optax.sgd.quadratic": lambda: mo.sgd(0.1, momentum=0.9, nesterov=True),
    "optax.sgd.schedule": lambda: mo.sgd(mo.linear_schedule(0.2, 0.0, 8), momentum=0.5),
    "optax.sign_sgd": lambda: mo.sign_sgd(0.01),
    "optax.signum": lambda: mo.signum(0.01, beta=0.9),
    "optax.sm3": lambda: mo.sm3(0.1),
    "optax.trace": lambda: mo.trace(0.9),
    "optax.trace.nesterov": lambda: mo.trace(0.9, nesterov=True),
    "optax.yogi": lambda: starting_with(mo.yogi(0.02), mu=1e-6),
    "optax.zero_nans": mo.zero_nans,
    "optimi.stable_adamw": lambda: mo.stable_adamw(0.02),
    "paper.adam_atan2": lambda: mo.adam_atan2(0.02),
    "paper.adan": lambda: mo.chain(mo.adan(0.02), proximal(0.02, 0.02)),
    "paper.diffgrad": lambda: mo.diffgrad(0.02),
    "paper.ftrl": lambda: mo.ftrl(0.1, l1=0.05, l2=0.01),
    "paper.lamb": lambda: mo.lamb(0.02, weight_decay=0.1),
    "paper.laprop": lambda: mo.laprop(0.02),
    "paper.muon_exact_rms": lambda: mo.chain(
        mo.trace(0.95, nesterov=True),
        mo.orthogonalize("polar_express", 14),
        mo.scale_by_shape(0.2),
        mo.add_decayed_weights(0.1),
        mo.scale_by_learning_rate(0.05),
    ),
    "pytorch_optimizer.sign_sgd": lambda: mo.sign_sgd(0.01),
    "pytorch_optimizer.aggmo": lambda: mo.aggmo(0.02),
    "pytorch_optimizer.ftrl": lambda: mo.ftrl(0.1, l1=0.01, l2=0.01),
    "pytorch_optimizer.madgrad": lambda: mo.madgrad(0.02 + 1e-6),
    "pytorch_optimizer.stable_adamw": lambda: mo.stable_adamw(0.02, eps=1e-8),
    "pytorch_optimizer.tiger": lambda: mo.tiger(0.01),
    "pytorch_optimizer.yogi": lambda: starting_with(mo.yogi(0.02), mu=1e-6),
    "qhoptim.qhadam": lambda: mo.qhadam(0.02, b1=0.9),
    "qhoptim.qhadam_decoupled": lambda: mo.qhadam(0.02, b1=0.9, nu2=0.9, weight_decay=0.1),
    "qhoptim.qhm": lambda: mo.qhm(0.05, momentum=0.9),
    "repo.adam_mini": lambda: mo.adam_mini(0.02, weight_decay=0.1),
    "repo.adan": lambda: mo.chain(mo.adan(0.02), proximal(0.02, 0.05)),
    "repo.adan.clip": lambda: mo.chain(mo.clip_by_global_norm(2.0), mo.adan(0.02)),
    "repo.adapnm": lambda: mo.adapnm(0.02),
    "repo.ademamix": lambda: mo.ademamix(0.02, alpha=2.0),
    "repo.ademamix.warmup": lambda: mo.ademamix(
        0.02,
        b3=mo.shifted(mo.half_life_schedule(0.9, 0.9999, 8), 1),
        alpha=mo.shifted(mo.linear_schedule(0.0, 5.0, 8), 1),
        weight_decay=0.1,
    ),
    "repo.adopt": lambda: mo.adopt(0.02),
    "repo.adopt.l2_noclip": lambda: l2(0.1, mo.adopt(0.02, use_clipping=False)),
    "repo.came": lambda: mo.came(0.02, min_dim_size_to_factor=1, axes="last"),
    "repo.grams": lambda: mo.inject_hyperparams(mo.grams)(0.02, eps=eps_of_transformers(1e-6, 0.999)),
    "repo.lion": lambda: mo.lion(0.01, weight_decay=0.1),
    "repo.moonlight_muon": lambda: mo.muon(
        0.05,
        eps=1e-7,
        weight_decay=0.1,
        bias_correction=False,
        consistent_rms=0.2,
        otherwise=mo.adamw(0.05, b2=0.95, weight_decay=0.1),
    ),
    "repo.muon": lambda: muon_by_hand(0.02, MUON_MOMENTUM),
    "repo.muon.aux_adam": lambda: mo.muon(
        0.02,
        eps=1e-7,
        weight_decay=0.01,
        bias_correction=False,
        otherwise=mo.adam(0.01, b2=0.95, eps=1e-10),
    ),
    "repo.muon.conv": lambda: muon_by_hand(0.02, MUON_MOMENTUM, weight_decay=0.1),
    "repo.schedule_free.adamw": lambda: mo.schedule_free_adamw(0.05),
    "repo.schedule_free.adamw_inner_momentum": lambda: mo.schedule_free(
        mo.adam(SCHEDULE_FREE_WARMUP, bias_correction=True), SCHEDULE_FREE_WARMUP
    ),
    "repo.schedule_free.adamw_quadratic": lambda: mo.schedule_free_adamw(0.2, warmup_steps=2, b2=0.95),
    "repo.schedule_free.adamw_wd": lambda: mo.schedule_free_adamw(0.05, warmup_steps=4, weight_decay=0.1),
    "repo.schedule_free.radam": lambda: mo.schedule_free_radam(0.05),
    "repo.schedule_free.sgd": lambda: mo.schedule_free_sgd(0.2),
    "repo.schedule_free.sgd_quadratic": lambda: mo.schedule_free_sgd(0.5, warmup_steps=3, b1=0.95),
    "timm.adamp": lambda: mo.adamp(0.02),
    "timm.adan": lambda: mo.chain(mo.adan(0.02), proximal(0.02, 0.05)),
    "timm.adopt": lambda: mo.adopt(0.02, clip_value_fn=lambda count: count**0.333),
    "timm.lamb": lambda: mo.chain(mo.clip_by_global_norm(1.0), mo.lamb(0.02, weight_decay=0.01)),
    "timm.lamb.no_clip": lambda: mo.lamb(0.02, weight_decay=0.1),
    "timm.laprop": lambda: mo.laprop(0.02),
    "timm.lars": lambda: mo.lars(1.0, 0.05, trust_coefficient=0.02, eps=1e-8, norms="separate"),
    "timm.nvnovograd": lambda: mo.novograd(0.02, 0.95, 0.98, 1e-8),
    "repo.galore_adamw": lambda: mo.galore(0.05, 2, 100, 0.5, adam_of_transformers()),
    "repo.galore_adamw.refresh": lambda: mo.galore(0.02, 2, 5, 0.5, adam_of_transformers(b1=0.0)),
    "repo.sophia_g": lambda: mo.sophia(
        0.02, 0.9, 0.95, 1e-15, 0.1, gamma=4 * 0.05, update_interval=3, hessian_diagonal=SQUARED, bias_correction=False
    ),
    "repo.prodigy": lambda: mo.prodigy(estim_lr0=1e-3, bias_correction=False),
    "repo.prodigy.quadratic": lambda: mo.prodigy(estim_lr0=0.01, bias_correction=False),
    "repo.prodigy.variants": lambda: mo.prodigy(estim_lr0=1e-3),
    "timm.rmsprop_tf": lambda: mo.rmsprop(0.01, eps=1e-10, initial_scale=1.0),
    "timm.sgdw": lambda: mo.chain(mo.trace(0.9), mo.add_decayed_weights(0.1), mo.scale_by_learning_rate(0.05)),
    "torch.adadelta": lambda: mo.adadelta(1.0),
    "torch.adafactor.default": lambda: mo.adafactor(mo.relative_step_schedule(0.05), 1, axes="last"),
    "torch.adafactor.eps": lambda: mo.chain(
        mo.scale_by_factored_rms(min_dim_size_to_factor=1, axes="last"),
        mo.clip_by_block_rms(1.0),
        mo.scale_by_param_block_rms(0.01),
        mo.scale_by_learning_rate(mo.relative_step_schedule(0.05)),
    ),
    "torch.adagrad.decay": lambda: l2(
        0.05, mo.adagrad(lambda count: 0.1 / (1 + 0.1 * count), 0.0, 1e-10, eps_in_sqrt=False)
    ),
    "torch.adagrad.default": lambda: mo.adagrad(0.1, 0.0, 1e-10, eps_in_sqrt=False),
    "torch.adam.default": lambda: mo.adam(0.05),
    "torch.adamax": lambda: mo.adamax(0.02),
    "torch.adamw.default": lambda: mo.adamw(0.05),
    "torch.adamw.maximize": lambda: mo.chain(mo.scale(-1.0), mo.adamw(0.02)),
    "torch.adamw.quadratic": lambda: mo.adamw(0.1, weight_decay=0.05),
    "torch.asgd": lambda: mo.asgd(0.05, lambd=0.01, t0=3),
    "torch.muon": lambda: mo.muon(0.02, eps=1e-7, weight_decay=0.1, bias_correction=False),
    "torch.muon.match_rms": lambda: mo.muon(
        0.02, eps=1e-7, weight_decay=0.1, bias_correction=False, consistent_rms=0.2
    ),
    "torch.nadam.decoupled": lambda: mo.nadamw(0.02, weight_decay=0.1, momentum_decay=0.004),
    "torch.nadam.default": lambda: mo.nadam(0.02, momentum_decay=0.004),
    "torch.radam.decoupled": lambda: mo.chain(
        mo.scale_by_radam(), mo.add_decayed_weights(0.1), mo.scale_by_learning_rate(0.02)
    ),
    "torch.radam.default": lambda: mo.radam(0.02),
    "torch.rmsprop.centered_momentum": lambda: mo.rmsprop(
        0.01, decay=0.9, centered=True, momentum=0.9, eps_in_sqrt=False
    ),
    "torch.rmsprop.default": lambda: mo.rmsprop(0.01, decay=0.99, eps_in_sqrt=False),
    "torch.rmsprop.momentum": lambda: mo.rmsprop(0.01, decay=0.99, momentum=0.9, eps_in_sqrt=False),
    "torch.rprop": lambda: mo.rprop(0.01),
    "torch.rprop.quadratic": lambda: mo.rprop(0.05),
    "torch.sgd.nesterov_wd": lambda: l2(0.05, mo.sgd(0.05, momentum=0.9, nesterov=True)),
    "torch.sgd.quadratic": lambda: mo.sgd(0.1, momentum=0.9),
    "transformers.adafactor": lambda: mo.adafactor(min_dim_size_to_factor=1, axes="last"),
    "transformers.adafactor.lr": lambda: mo.adafactor(0.05, 1, momentum=0.9, axes="last"),
}

DIFFERENT: dict[str, tuple[Callable[[], GradientTransformation], str]] = {
    "dadaptation.lion": (
        lambda: mo.dadapt_lion(estim_lr0=1e-3),
        "the authors' code weighs its memory, which is scaled by the distance, against a gradient that is not",
    ),
    "optax.adadelta.no_lr": (mo.adadelta, "without a learning rate optax does not flip the sign, and climbs"),
    "optax.adan.default": (lambda: mo.adan(0.03, eps_root=1e-8), "optax weighs the difference by 1 - b2, not by b2"),
    "optax.rprop": (lambda: mo.rprop(0.01), "optax returns each step one update late; ours is torch's rule"),
    "timm.nadamw": (lambda: mo.nadamw(0.02), "timm decays the momentum by a schedule, as torch does"),
    "torch.sgd.dampening": (
        lambda: mo.sgd(0.05, momentum=0.9, dampening=0.3),
        "torch does not dampen the first gradient; ours is MLX's rule, which treats all steps alike",
    ),
    "torch.adam.amsgrad_l2": (
        lambda: l2(0.05, mo.amsgrad(0.05, b2=0.9)),
        "torch takes the largest raw power and corrects it afterwards; ours corrects before, as optax does",
    ),
    "torch.adamw.amsgrad": (
        lambda: mo.chain(mo.scale_by_amsgrad(b2=0.95), mo.add_decayed_weights(0.1), mo.scale_by_learning_rate(0.05)),
        "as torch.adam.amsgrad_l2",
    ),
}


@cache
def tensors(name: str) -> dict[str, mx.array]:
    loaded = mx.load(str(FOLDER / f"{name}.safetensors"))
    assert isinstance(loaded, dict)
    return loaded


def nested(flat: dict[str, mx.array], prefix: str) -> Params:
    """The tree under a prefix of dotted names; an all-digits component is a list index."""
    if prefix in flat:
        return flat[prefix]
    below = {key.removeprefix(f"{prefix}."): value for key, value in flat.items() if key.startswith(f"{prefix}.")}
    parts = {head: nested(below, head) for head in dict.fromkeys(path.split(".")[0] for path in below)}
    return [parts[head] for head in sorted(parts, key=int)] if next(iter(parts)).isdigit() else parts


def problem(case: dict[str, Any], inputs: dict[str, mx.array], prefix: str) -> Params:
    """Parameters or gradients of a case, which may leave some out, and may start from their magnitudes."""
    given = {f"{prefix}.{path}": inputs[f"{prefix}.{path}"] for path in case["leaves"]} if "leaves" in case else inputs
    found = nested(given, prefix)
    return tree.map(mx.abs, found) if prefix == "params" and case.get("abs_params") else found


def loss(inputs: dict[str, mx.array], params: Params) -> mx.array:
    """The quadratic whose gradients :func:`run` computes, or the function of Rosenbrock."""

    def bowl(p: mx.array, a: mx.array, centre: mx.array) -> mx.array:
        apart = (p - centre).reshape(-1)
        return 0.5 * apart @ a @ apart

    if "pstar.x" in inputs:
        return tree.sum(tree.map(bowl, params, nested(inputs, "A"), nested(inputs, "pstar")))
    x = params["x"]
    return mx.sum(100 * mx.square(x[1:] - mx.square(x[:-1])) + mx.square(1 - x[:-1]))


def extras(case: dict[str, Any], inputs: dict[str, mx.array], step: int, params: Params) -> dict[str, Any]:
    """What an update gets besides: the loss of the step, and the loss as a function."""
    wanted, value_fn = case.get("extras", []), functools.partial(loss, inputs)
    if "value_fn" in wanted:
        value, grad = mx.value_and_grad(value_fn)(params)
        return {"value": value, "grad": grad, "value_fn": value_fn}
    known = {}
    if "value" in wanted:
        known["value"] = inputs["values"][step] if "values" in inputs else value_fn(params)
    return {**known, "value_fn": value_fn} if "grad_fn" in wanted else known


def run(
    case: dict[str, Any],
    tx: GradientTransformation,
    seen: Callable[[State, Params], Params] = lambda state, params: params,
) -> list[Params]:
    """The parameters (or, where the case stores them, the updates) after every step, or what is made of them."""
    inputs = tensors(case["inputs"])
    params = start = problem(case, inputs, "params")
    state, results = tx.init(params), []
    for step in range(case["steps"]):
        known = extras(case, inputs, step, params)
        if "grad" in known:
            grads = known["grad"]
        elif case["inputs"] == "inputs_quadratic":
            grads = tree.map(
                lambda p, a, centre: (a @ (p - centre).reshape(-1)).reshape(p.shape),
                params, nested(inputs, "A"), nested(inputs, "pstar"),
            )  # fmt: skip
        else:
            grads = problem(case, inputs, f"grads.{step}")
        if case["inputs"] == "inputs_examples":
            settings = {name: case["kwargs"][name] for name in ("l2_norm_clip", "noise_multiplier")}
            grads = mo.differentially_private_aggregate(grads, key=mx.random.key(step), **settings)
        updates, state = tx.update(grads, state, params, **known)
        params = start if case["stores"] == "updates" else mo.apply_updates(params, updates)
        results.append(updates if case["stores"] == "updates" else seen(state, params))
    return results


def stored(case: dict[str, Any]) -> dict[str, mx.array]:
    """What the file holds of a case, by what it is, step and path."""
    source = {"optax": "optax", "torch": "torch", "mlx.optimizers": "mlx"}.get(case["source"], "others")
    prefix = f"{case['name']}:"
    return {key.removeprefix(prefix): value for key, value in tensors(source).items() if key.startswith(prefix)}


def expected(case: dict[str, Any], what: str | None = None) -> list[Params]:
    flat = stored(case)
    return [nested(flat, f"{what or case['stores']}.{step}") for step in range(case["steps"])]


def deviation(results: list[Params], references: list[Params]) -> float:
    """Largest distance from the reference, relative to the largest value of the leaf over the whole run."""
    worst = 0.0
    for path in tree.paths(references[0]):
        got = mx.stack([dict(tree.items(result))[path] for result in results])
        want = mx.stack([dict(tree.items(reference))[path] for reference in references])
        finite = mx.isfinite(want)
        assert mx.array_equal(mx.where(finite, 0, got), mx.where(finite, 0, want)), path
        scale = mx.max(mx.where(finite, mx.abs(want), 0)).item()
        distance = mx.max(mx.where(finite, mx.abs(got - want), 0)).item()
        assert isinstance(scale, float)
        assert isinstance(distance, float)
        worst = max(worst, distance / scale if scale else distance)
    return worst


def test_every_case_is_used() -> None:
    assert set(CASES) == SAME.keys() | DIFFERENT.keys()
    assert not SAME.keys() & DIFFERENT.keys()


@pytest.mark.parametrize("name", SAME)
def test_trajectory(name: str) -> None:
    case = CASES[name]
    assert deviation(run(case, SAME[name]()), expected(case)) < RTOL


@pytest.mark.parametrize("name", [name for name in SAME if "lookahead" in name or "schedule_free" in name])
def test_what_is_evaluated(name: str) -> None:
    """The slow parameters of lookahead, the average x of schedule-free runs."""
    case = CASES[name]
    what = "slow" if "lookahead" in name else "eval"
    assert deviation(run(case, SAME[name](), mo.eval_params), expected(case, what)) < RTOL
    assert deviation(run(case, SAME[name]()), expected(case, what)) > 10 * RTOL


@pytest.mark.parametrize("name", DIFFERENT)
def test_differs_on_purpose(name: str) -> None:
    case, (build, reason) = CASES[name], DIFFERENT[name]
    assert reason
    assert deviation(run(case, build()), expected(case)) > 10 * RTOL


def test_a_wrong_hyperparameter_is_noticed() -> None:
    case = CASES["optax.adam.default"]
    assert deviation(run(case, mo.adam(0.05, b2=0.998)), expected(case)) > 10 * RTOL
