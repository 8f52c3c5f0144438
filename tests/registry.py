"""Every public transformation, with what the laws need to know of it.

To put a transformation under all laws, add a line to ``ENTRIES``.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import pytest

import mlxopt as mo
from mlxopt.base import GradientTransformation
from mlxopt.testing.algebra import matrix
from mlxopt.testing.checking import Law
from mlxopt.testing.problems import Extras, no_extras
from mlxopt.testing.subjects import Subject


class Kernels(NamedTuple):
    """Kernels of a compiled step for each leaf, in float32 and bfloat16, and what keeps them from being one."""

    float32: int = 1
    bfloat16: int = 1
    why: str = ""


ONE = Kernels()


@dataclass(frozen=True, eq=False)
class Entry(Subject):
    """A way to build a transformation, and what the tests need to know of it."""

    kernels: Kernels = ONE  # only looked at for whole optimizers
    why_less: str = ""  # what keeps it from bearing gradients of 1e18

    @property
    def public_name(self) -> str:
        """The first word of its name; the others set this entry apart."""
        return self.name.split()[0]

    @property
    def names(self) -> dict[str, Any]:
        """Also what stands around here."""
        return {**globals(), **super().names}


def cases(laws: list[Law], entries: list[Entry]) -> list[Any]:
    """All laws of an entry, then those of the next: what one compiled serves the other. A waived one is a skip."""
    return [
        pytest.param(
            law,
            entry,
            id=f"{law.name}-{entry.name}",
            marks=[pytest.mark.skip(reason=entry.waivers[law.name])] if law.name in entry.waivers else [],
        )
        for entry in entries
        for law in laws
        if law.is_about(entry)
    ]


def recipe(
    name: str,
    factory: Callable[..., GradientTransformation],
    rate: float = 0.1,
    kernels: Kernels = ONE,
    static: tuple[str, ...] = (),
    waivers: dict[str, str] | None = None,
    degree: int | None = None,
    extras: Extras = no_extras,
    **settings: Any,
) -> Entry:
    """A whole optimizer."""
    known = {"learning_rate": rate, **settings}
    return Entry(
        name, factory, known, rate, extras, static=static, kernels=kernels, waivers=waivers or {}, degree=degree
    )


def kernel(path: str, leaf: mx.array) -> bool:
    del path
    return leaf.ndim > 2


NORMS_ONLY = 1e37
"""Gradients that what squares them in norms only bears too."""


def value_of(grads: Any) -> dict[str, Any]:
    """An extra that changes from step to step, in the place of a loss."""
    return {"value": mo.tree.norm(grads)}


def waves(params: Any) -> mx.array:
    return mo.tree.sum(mo.tree.map(mx.sin, params))


def with_waves(grads: Any) -> dict[str, Any]:
    """A loss whose curvature depends on the parameters."""
    del grads
    return {"value_fn": waves}


def sampled_loss(params: Any, key: mx.array, *, value: mx.array) -> tuple[mx.array, mx.array]:
    """A loss that depends on what is drawn, with gradients of at most 1."""
    share = mx.random.uniform(key=key) * value / (1 + value)
    return share * waves(params), mx.array(8)


TWO_RATES = "its two optimizers have a learning rate each, which tree.get_all lists"

CLOSED = "the parameters are a closed form of all gradients and of the rate, which must be above 0 and stops nothing"
CURVATURE = mo.stateless_with_tree_map(lambda u, p: mx.square(u), reach="element")

SCHEDULE = mo.linear_schedule(0.5, 0.1, 3)

APART = "neither of two outputs needs the other, and MLX joins only what one output needs; what both need is a third"
NORMS = "norms of leaves end kernels; what is made of them is a kernel of one element"
ANGLES = "inner products of units and of the whole leaf end kernels"
SUMS = "sums over all leaves lie between the gradient and the step"
MEANS = "means over rows, columns and the whole leaf end kernels"
DECOMPOSED = "every matrix is decomposed, made smaller and made larger again"
PRODUCTS = "matrix products lie between the mean and the step; they count once for all leaves of a shape"
PAIRS = "products with the last steps and gradients come before a step and in its middle"
DEEP = "the formula is deeper than MLX fuses (11 operations); in bfloat16 the casts count too"

EXACT_PARAMETERS = dict.fromkeys(
    ["low_precision_follows_float32", "parameters_follow_float32"],
    "of low precision the state keeps what the parameters are before they are rounded, of float32 nothing",
)


def bowl(params: Any) -> mx.array:
    return 0.5 * mo.tree.vdot(params, params)


def of_bowl(grads: Any) -> dict[str, Any]:
    """The bowl, whatever the gradients are."""
    del grads
    return {"value_fn": bowl}


def downhill(grads: Any) -> dict[str, Any]:
    """Extras for a search along the gradients themselves; that they are not those of the bowl is hidden from it."""
    return {"value": mx.array(6.0), "grad": mo.tree.scale(-1.0, grads), "value_fn": bowl}


ENTRIES = [
    # transforms
    Entry("identity", mo.identity, degree=1),
    Entry("set_to_zero", mo.set_to_zero),
    Entry(
        "stateless",
        lambda: mo.stateless(lambda updates, params: mo.tree.scale(0.5, updates), reach="element"),
        degree=1,
    ),
    Entry(
        "stateless_with_tree_map", lambda: mo.stateless_with_tree_map(lambda u, p: 0.5 * u, reach="element"), degree=1
    ),
    Entry("scale", mo.scale, {"step_size": -0.5}, degree=1),
    Entry("scale_by_schedule", mo.scale_by_schedule, {"step_size_fn": SCHEDULE}, degree=1),
    recipe("scale_by_learning_rate", mo.scale_by_learning_rate, degree=1),
    Entry("scale_by_learning_rate schedule", mo.scale_by_learning_rate, {"learning_rate": SCHEDULE}, degree=1),
    Entry("scale_by_sign", mo.scale_by_sign, degree=0),
    Entry("scale_by_param_block_norm", mo.scale_by_param_block_norm, degree=1),
    Entry("scale_by_param_block_rms", mo.scale_by_param_block_rms, degree=1),
    Entry("scale_by_shape", mo.scale_by_shape, degree=1),
    Entry("scale_by_shape stacked", mo.scale_by_shape, {"consistent_rms": 0.2, "stacked": kernel}, degree=1),
    Entry("orthogonalize", mo.orthogonalize, finite_to=NORMS_ONLY),
    Entry(
        "orthogonalize stacked",
        mo.orthogonalize,
        {"ns_coeffs": "polar_express", "stacked": kernel},
        finite_to=NORMS_ONLY,
    ),
    Entry(
        "orthogonalize adaptive",
        mo.orthogonalize,
        {"ns_coeffs": "dion", "adaptive": True, "preconditioning": "schatten"},
    ),
    Entry("orthogonalize bfloat16", mo.orthogonalize, {"preconditioning": "aol", "dtype": mx.bfloat16}),
    Entry("trace", mo.trace, {"decay": 0.9}, degree=1),
    Entry("trace nesterov", mo.trace, {"decay": 0.9, "nesterov": True}, degree=1),
    Entry("scale_by_trust_ratio", mo.scale_by_trust_ratio, {"trust_coefficient": 0.1}),
    Entry("trace bfloat16", mo.trace, {"decay": 0.9, "accumulator_dtype": mx.bfloat16, "dampening": 0.5}),
    Entry("ema", mo.ema, {"decay": 0.9}, degree=1),
    Entry("ema nesterov", mo.ema, {"decay": 0.9, "nesterov": True}, degree=1),
    Entry("clip", mo.clip, {"max_delta": 0.5}),
    Entry("clip_by_global_norm", mo.clip_by_global_norm, {"max_norm": 0.5}, finite_to=NORMS_ONLY),
    Entry("clip_by_block_rms", mo.clip_by_block_rms, {"threshold": 0.5}, finite_to=NORMS_ONLY),
    Entry("adaptive_grad_clip", mo.adaptive_grad_clip, {"clipping": 0.1}),
    Entry("keep_params_nonnegative", mo.keep_params_nonnegative),
    Entry("clip_by_update_rms", lambda: mo.clip_by_update_rms(mo.scale_by_adam(b2=0.9), 0.9)),
    Entry("add_decayed_weights", mo.add_decayed_weights, {"weight_decay": 0.1}),
    Entry("add_decayed_weights schedule", mo.add_decayed_weights, {"weight_decay": SCHEDULE, "mask": matrix}),
    Entry("zero_nans", mo.zero_nans, degree=1),
    Entry("centralize", mo.centralize, degree=1),
    Entry("clip_outliers", mo.clip_outliers, {"window": 2, "threshold": 0.5}),
    Entry("normalize", mo.normalize),
    Entry("normalize_by_update_norm", mo.normalize_by_update_norm, {"scale_factor": 0.5}),
    Entry("reduce_on_plateau", mo.reduce_on_plateau, {"factor": 0.5, "patience": 1}, extras=value_of),
    Entry("reduce_on_plateau cooled", mo.reduce_on_plateau, {"cooldown": 1, "accumulation_size": 2}, extras=value_of),
    Entry("zero_infs", mo.zero_infs),
    Entry("monitor", mo.monitor, {"measures": {"update_ratio": mo.update_ratio}}),
    Entry("monitor leaves", mo.monitor, {"measures": {"norms": lambda u: mo.tree.map(mo.tree.norm, u)}}),
    Entry("monitor means", mo.monitor, {"measures": {"ratio": mo.measure_with_ema(mo.update_ratio, 0.9)}}),
    Entry("snapshot", mo.snapshot, {"measure_name": "ratio", "measure": mo.update_ratio}),
    Entry("add_noise", mo.add_noise, {"eta": 0.01, "gamma": 0.55, "key": 0}),
    # combinators
    Entry("chain", lambda: mo.chain(mo.clip(0.5), mo.scale_by_adam(), mo.scale(-0.1))),
    Entry("chain none", mo.chain),
    Entry("named_chain", lambda: mo.named_chain(("clip", mo.clip(0.5)), ("adam", mo.scale_by_adam()))),
    Entry("masked", lambda: mo.masked(mo.scale_by_adam(), matrix, otherwise="pass")),
    Entry("masked zero", lambda: mo.masked(mo.scale_by_adam(), matrix, otherwise="zero")),
    Entry(
        "partition",
        lambda: mo.partition(
            {"matrix": mo.adamw(0.1), "other": mo.sgd(0.1, momentum=0.9)},
            lambda path, leaf: "matrix" if matrix(path, leaf) else "other",
        ),
    ),
    Entry("freeze", mo.freeze, {"mask": matrix}),
    Entry("inject_hyperparams", lambda: mo.inject_hyperparams(mo.adam)(0.1, b1=SCHEDULE)),
    Entry(
        "inject_hyperparams stateful",
        lambda: mo.inject_hyperparams(mo.adam)(mo.plateau_schedule(0.1, patience=1)),
        extras=value_of,
    ),
    # wrappers
    Entry("apply_if_finite", lambda: mo.apply_if_finite(mo.adam(0.1), 2)),
    Entry("conditionally_transform", lambda: mo.conditionally_transform(mo.trace(0.9), lambda step: step % 2 == 1)),
    Entry(
        "conditionally_mask value",
        lambda: mo.conditionally_mask(mo.adam(0.1), lambda step, *, value: value < 2.5),
        extras=lambda grads: {"value": mo.tree.norm(grads)},
    ),
    Entry("multi_steps", lambda: mo.multi_steps(mo.adam(0.1), 2)),
    Entry("multi_steps skipping", lambda: mo.multi_steps(mo.sgd(0.1), 2, should_skip=mo.skip_not_finite)),
    Entry("apply_every", mo.apply_every, {"k": 2}),
    Entry("average_params", mo.average_params, {"decay": 0.9}),
    Entry(
        "average_params tail",
        mo.average_params,
        {"decay": None, "debias": False, "start": 1, "every": 2},
    ),
    Entry("outer_optimizer", lambda: mo.outer_optimizer(mo.adam(0.1), 2, mo.sgd(0.5))),
    Entry("outer_nesterov", lambda: mo.outer_nesterov(mo.sgd(0.1, momentum=0.9), 2)),
    Entry("lookahead", lambda: mo.lookahead(mo.adam(0.1), 2, 0.5)),
    Entry("lookahead reset", lambda: mo.lookahead(mo.adam(0.1), 2, 0.5, reset_state=True)),
    Entry("schedule_free", lambda: mo.schedule_free(mo.adam(0.1, b1=0.0), 0.1), waivers=EXACT_PARAMETERS),
    recipe("schedule_free_sgd", mo.schedule_free_sgd, waivers=EXACT_PARAMETERS),
    recipe("schedule_free_adamw", mo.schedule_free_adamw, kernels=Kernels(2, 3, DEEP), waivers=EXACT_PARAMETERS),
    Entry("schedule_free_adamw warm-up", lambda: mo.schedule_free_adamw(0.1, warmup_steps=2), waivers=EXACT_PARAMETERS),
    recipe(
        "schedule_free_radam",
        mo.schedule_free_radam,
        kernels=Kernels(2, 3, DEEP),
        waivers={
            **EXACT_PARAMETERS,
            "weight_decay_is_visible": "the first four steps, all that is looked at, are none",
        },
        static=("b2",),
        b2=0.9,
    ),
    Entry("flatten", lambda: mo.flatten(mo.chain(mo.clip_by_global_norm(0.5), mo.adamw(0.1)))),
    Entry("split_real_and_imaginary", lambda: mo.split_real_and_imaginary(mo.adam(0.1))),
    Entry("mechanize", lambda: mo.mechanize(mo.adam(1.0))),
    Entry("skip_outliers", lambda: mo.skip_outliers(mo.adam(0.1), 2, 0.5)),
    Entry("skip_outliers value", lambda: mo.skip_outliers(mo.adam(0.1), 2, 0.5, by="value"), extras=value_of),
    Entry("sam", mo.sam, {"inner": mo.adam(0.1)}, extras=of_bowl),
    Entry(
        "sam twice",
        mo.sam,
        {"inner": mo.sgd(0.1), "direction": mo.trace(0.9), "ascents": 2, "reset_state": False},
        extras=of_bowl,
    ),
    Entry("asam", mo.asam, {"inner": mo.sgd(0.1, momentum=0.9)}, extras=of_bowl),
    Entry("alternating_sam", lambda: mo.alternating_sam(mo.adam(0.1))),
    # searches along a line
    Entry(
        "scale_by_backtracking_linesearch",
        mo.scale_by_backtracking_linesearch,
        {"max_backtracking_steps": 2},
        extras=downhill,
    ),
    Entry(
        "scale_by_backtracking_linesearch stored",
        mo.scale_by_backtracking_linesearch,
        {"max_backtracking_steps": 2, "decrease_factor": 0.5, "store_grad": True},
        extras=downhill,
    ),
    Entry("scale_by_zoom_linesearch", mo.scale_by_zoom_linesearch, {"max_linesearch_steps": 2}, extras=downhill),
    # optimizers
    Entry("scale_by_lbfgs", mo.scale_by_lbfgs, {"memory_size": 2}),
    recipe("lbfgs", mo.lbfgs, memory_size=2, linesearch=None, kernels=Kernels(13, 15, PAIRS)),
    Entry("scale_by_adam", mo.scale_by_adam),
    Entry("scale_by_adam nesterov", mo.scale_by_adam, {"nesterov": True, "eps_root": 1e-6}),
    Entry("scale_by_adam uncorrected", mo.scale_by_adam, {"bias_correction": False}),
    Entry("scale_by_adam bfloat16", mo.scale_by_adam, {"mu_dtype": mx.bfloat16}),
    Entry("scale_by_amsgrad", mo.scale_by_amsgrad),
    Entry("scale_by_adamax", mo.scale_by_adamax),
    Entry("scale_by_belief", mo.scale_by_belief),
    Entry("scale_by_radam", mo.scale_by_radam, {"b2": 0.9}, static=("b2",)),
    Entry("scale_by_lion", mo.scale_by_lion, degree=0),
    Entry("scale_by_lion smooth", mo.scale_by_lion, {"mode": "smooth"}),
    Entry("scale_by_lion refined", mo.scale_by_lion, {"mode": "refined"}),
    Entry("scale_by_rms", mo.scale_by_rms),
    Entry("scale_by_rms outside", mo.scale_by_rms, {"eps_in_sqrt": False, "bias_correction": True}),
    Entry("scale_by_stddev", mo.scale_by_stddev, {"eps": 1e-4}),
    Entry(
        "scale_by_stddev outside",
        mo.scale_by_stddev,
        {"initial_scale": 1.0, "eps_in_sqrt": False, "bias_correction": True},
    ),
    Entry("scale_by_rss", mo.scale_by_rss),
    Entry("scale_by_rss outside", mo.scale_by_rss, {"initial_accumulator_value": 0.0, "eps_in_sqrt": False}),
    Entry("scale_by_adadelta", mo.scale_by_adadelta),
    Entry("scale_by_factored_rms", mo.scale_by_factored_rms, {"min_dim_size_to_factor": 2}),
    Entry("scale_by_factored_rms whole", mo.scale_by_factored_rms, {"factored": False}),
    Entry("scale_by_factored_rms last", mo.scale_by_factored_rms, {"min_dim_size_to_factor": 1, "axes": "last"}),
    Entry("scale_by_muon", mo.scale_by_muon),
    recipe("sgd", mo.sgd, degree=1),
    recipe("sgd momentum", mo.sgd, momentum=0.9, nesterov=True, degree=1),
    recipe("sign_sgd", mo.sign_sgd, degree=0),
    recipe("signum", mo.signum, degree=0),
    Entry("scale_by_novograd", mo.scale_by_novograd),
    Entry("scale_by_yogi", mo.scale_by_yogi),
    Entry("scale_by_optimistic_gradient", mo.scale_by_optimistic_gradient, {"beta": 0.5}, degree=1),
    Entry("scale_by_rprop", mo.scale_by_rprop, {"learning_rate": 0.1}, degree=0),
    Entry("rprop", mo.rprop, {"learning_rate": 0.1}, degree=0),
    Entry("scale_by_sm3", mo.scale_by_sm3),
    Entry("scale_by_adan", mo.scale_by_adan),
    Entry("scale_by_acprop", mo.scale_by_acprop),
    Entry("scale_by_ademamix", mo.scale_by_ademamix),
    Entry("scale_by_simplified_ademamix", mo.scale_by_simplified_ademamix, {"alpha": 2.0}),
    Entry("scale_by_adopt", mo.scale_by_adopt),
    Entry("scale_by_adopt nesterov", mo.scale_by_adopt, {"nesterov": True}),
    Entry("scale_by_madgrad", mo.scale_by_madgrad, {"learning_rate": 0.1}),
    Entry("scale_by_nadam", mo.scale_by_nadam),
    Entry("scale_by_qhm", mo.scale_by_qhm, degree=1),
    Entry("scale_by_qhadam", mo.scale_by_qhadam, {"nu2": 0.9}),
    Entry("scale_by_diffgrad", mo.scale_by_diffgrad),
    Entry("scale_by_grams", mo.scale_by_grams),
    Entry("scale_by_aggmo", mo.scale_by_aggmo, degree=1),
    Entry("scale_by_adam_atan2", mo.scale_by_adam_atan2),
    Entry("scale_by_adapnm", mo.scale_by_adapnm),
    Entry("scale_by_came", mo.scale_by_came, {"min_dim_size_to_factor": 1, "axes": "last"}),
    Entry("scale_by_adam_mini", mo.scale_by_adam_mini),
    Entry("scale_by_adam_mini blocks", mo.scale_by_adam_mini, {"blocks": lambda path, leaf: 1}),
    Entry("scale_by_polyak", mo.scale_by_polyak, extras=value_of),
    Entry("scale_by_polyak sps+", mo.scale_by_polyak, {"f_min": 0.1, "variant": "sps+"}, extras=value_of),
    Entry("polyak_sgd", mo.polyak_sgd, extras=value_of),
    Entry("scale_by_dog", mo.scale_by_dog),
    Entry("scale_by_dog learning_rate", mo.scale_by_dog, {"init_step": ("learning_rate", 0.1)}),
    Entry("scale_by_distance_over_gradients", mo.scale_by_distance_over_gradients, {"reps_rel": 0.1}),
    Entry("scale_by_dowg", mo.scale_by_dowg),
    Entry("scale_by_cocob", mo.scale_by_cocob),
    Entry("constrain", mo.constrain, {"projection": mo.projection_l2_ball}),
    Entry("constrain simplex", lambda: mo.constrain(mo.projection_simplex, 2.0)),
    Entry("hutchinson_estimator_diag_hessian", mo.hutchinson_estimator_diag_hessian, {"key": 0}, extras=with_waves),
    Entry(
        "gauss_newton_estimator_diag_hessian",
        mo.gauss_newton_estimator_diag_hessian,
        {"sampled_loss_fn": sampled_loss, "key": 0},
        extras=value_of,
    ),
    Entry("scale_by_sophia", mo.scale_by_sophia, {"gamma": 0.1, "update_interval": 2, "hessian_diagonal": CURVATURE}),
    Entry(
        "scale_by_sophia hutchinson",
        mo.scale_by_sophia,
        {"hessian_diagonal": mo.hutchinson_estimator_diag_hessian(0), "update_interval": 2},
        extras=with_waves,
    ),
    Entry("low_rank", lambda: mo.low_rank(mo.scale_by_adam(), mo.galore_projector(2, 2))),
    Entry("low_rank larger", lambda: mo.low_rank(mo.scale_by_rms(), mo.galore_projector(1, 2, 0.5, side="larger"))),
    recipe("adam", mo.adam),
    recipe("nadam", mo.nadam),
    recipe("adamw", mo.adamw),
    recipe("adamw masked", mo.adamw, mask=matrix),
    recipe("nadamw", mo.nadamw),
    recipe("amsgrad", mo.amsgrad, kernels=Kernels(1, 2, DEEP)),
    recipe("adamax", mo.adamax),
    recipe("adamaxw", mo.adamaxw),
    recipe("adabelief", mo.adabelief, kernels=Kernels(2, 4, DEEP), weight_decay=0.01),
    recipe("radam", mo.radam, static=("b2",), b2=0.9),
    recipe("lion", mo.lion, kernels=Kernels(1, 4, DEEP)),
    recipe("rmsprop", mo.rmsprop),
    recipe(
        "rmsprop centered",
        mo.rmsprop,
        kernels=Kernels(4, 4, DEEP),
        centered=True,
        momentum=0.9,
        nesterov=True,
        eps=1e-4,
    ),
    recipe("adagrad", mo.adagrad, rate=1.0),
    recipe("adadelta", mo.adadelta, kernels=Kernels(3, 4, APART), rate=3.0, eps=1e-3),
    recipe(
        "adafactor",
        mo.adafactor,
        kernels=Kernels(22, 24, MEANS),
        min_dim_size_to_factor=2,
    ),
    recipe(
        "adafactor momentum",
        mo.adafactor,
        kernels=Kernels(15, 16, MEANS),
        min_dim_size_to_factor=1,
        momentum=0.9,
        multiply_by_parameter_scale=False,
        axes="last",
    ),
    recipe("lars", mo.lars, rate=10.0, kernels=Kernels(14, 15, NORMS)),
    recipe("lars masked", mo.lars, kernels=Kernels(14, 15, NORMS), mask=matrix, trust_ratio_mask=matrix),
    recipe("lars separate", mo.lars, kernels=Kernels(19, 21, NORMS), trust_ratio_mask=matrix, norms="separate"),
    recipe("lamb", mo.lamb, kernels=Kernels(14, 15, NORMS)),
    recipe("fromage", mo.fromage, kernels=Kernels(13, 15, NORMS)),
    recipe("novograd", mo.novograd, kernels=Kernels(6, 7, NORMS)),
    recipe("yogi", mo.yogi),
    recipe("noisy_sgd", mo.noisy_sgd, kernels=Kernels(2, 3, "random bits are drawn apart"), key=0),
    recipe("optimistic_gradient_descent", mo.optimistic_gradient_descent, degree=1),
    recipe("optimistic_adam", mo.optimistic_adam, kernels=Kernels(1, 2, DEEP)),
    recipe("sm3", mo.sm3, rate=1.0, kernels=Kernels(4, 5, "largest values of rows and columns end kernels")),
    recipe("adan", mo.adan, kernels=Kernels(2, 4, DEEP)),
    recipe("acprop", mo.acprop, kernels=Kernels(3, 4, APART)),
    recipe("ademamix", mo.ademamix),
    recipe("ademamix schedules", mo.ademamix, b3=mo.linear_schedule(0.9, 0.99, 100), alpha=SCHEDULE),
    recipe("simplified_ademamix", mo.simplified_ademamix, rate=0.01),
    recipe("adopt", mo.adopt, kernels=Kernels(2, 3, APART)),
    recipe("madgrad", mo.madgrad, kernels=Kernels(2, 3, DEEP)),
    recipe("stable_adamw", mo.stable_adamw, kernels=Kernels(10, 11, NORMS)),
    recipe("nadam momentum", mo.nadam, momentum_decay=0.004),
    recipe("asgd", mo.asgd, kernels=Kernels(1, 3, DEEP), t0=2),
    recipe("qhm", mo.qhm, momentum=0.9, degree=1),
    recipe("qhadam", mo.qhadam, kernels=Kernels(1, 3, DEEP), b1=0.9),
    recipe("diffgrad", mo.diffgrad, rate=0.2),
    recipe("grams", mo.grams, kernels=Kernels(1, 3, DEEP)),
    recipe("aggmo", mo.aggmo, rate=0.05, degree=1),
    recipe("tiger", mo.tiger, degree=0),
    recipe("laprop", mo.laprop, kernels=Kernels(2, 4, DEEP)),
    recipe("adam_atan2", mo.adam_atan2, kernels=Kernels(1, 2, DEEP)),
    recipe("adapnm", mo.adapnm, kernels=Kernels(1, 2, DEEP)),
    recipe("adamp", mo.adamp, kernels=Kernels(20, 22, ANGLES)),
    recipe("sgdp", mo.sgdp, kernels=Kernels(20, 22, ANGLES)),
    recipe("ftrl", mo.ftrl, rate=1.0, kernels=Kernels(1, 2, DEEP), waivers={"learning_rate_is_visible": CLOSED}),
    recipe("came", mo.came, kernels=Kernels(23, 24, MEANS), min_dim_size_to_factor=2),
    recipe("adam_mini", mo.adam_mini, kernels=Kernels(5, 6, MEANS)),
    recipe("dog", mo.dog, rate=1.0, kernels=Kernels(3, 4, SUMS), init_step=("distance", 0.1)),
    recipe("dowg", mo.dowg, rate=1.0, kernels=Kernels(3, 4, SUMS), weight_decay=0.01),
    recipe("cocob", mo.cocob, rate=1.0),
    recipe("prodigy", mo.prodigy, rate=1.0, kernels=Kernels(3, 5, SUMS), estim_lr0=1e-2),
    recipe(
        "prodigy slices",
        mo.prodigy,
        rate=1.0,
        kernels=Kernels(5, 7, SUMS),
        estim_lr0=1e-2,
        weight_decay=0.01,
        mask=matrix,
        safeguard_warmup=True,
        slice_p=2,
    ),
    recipe("dadapt_adamw", mo.dadapt_adamw, rate=1.0, kernels=Kernels(4, 5, SUMS), estim_lr0=1e-2),
    recipe("dadapt_adam", mo.dadapt_adam, rate=1.0, kernels=Kernels(5, 6, SUMS), estim_lr0=1e-2),
    recipe("dadapt_sgd", mo.dadapt_sgd, rate=1.0, kernels=Kernels(4, 5, SUMS), momentum=0.5, estim_lr0=1e-2),
    recipe("dadapt_lion", mo.dadapt_lion, rate=1.0, kernels=Kernels(6, 6, SUMS), estim_lr0=1e-2),
    recipe("momo", mo.momo, kernels=Kernels(6, 8, SUMS), extras=value_of),
    recipe(
        "momo adaptive",
        mo.momo,
        kernels=Kernels(6, 8, SUMS),
        extras=value_of,
        weight_decay=0.01,
        mask=matrix,
        adapt_lower_bound=True,
    ),
    recipe(
        "momo_adam",
        mo.momo_adam,
        kernels=Kernels(7, 9, SUMS),
        extras=value_of,
        weight_decay=0.01,
        adapt_lower_bound=True,
    ),
    recipe("sophia", mo.sophia, kernels=Kernels(2, 3, APART), gamma=0.1, hessian_diagonal=CURVATURE),
    recipe("galore", mo.galore, kernels=Kernels(17, 18, DECOMPOSED), rank=2, weight_decay=0.01),
    recipe("muon", mo.muon, kernels=Kernels(2, 2, PRODUCTS), waivers={"learning_rate_is_visible": TWO_RATES}),
    recipe(
        "muon otherwise",
        mo.muon,
        kernels=Kernels(2, 2, PRODUCTS),
        consistent_rms=0.2,
        otherwise=mo.sgd(0.1),
        matrices=matrix,
        waivers={"learning_rate_is_visible": TWO_RATES},
    ),
]


def within_others(entries: list[Entry]) -> set[str]:
    """Names of the entries that are a part of a whole optimizer, with the same settings."""
    wholes = [tx for entry in entries if entry.recipe and (tx := entry.build()).stages]
    parts = {repr(stage) for tx in wholes for stage in tx.stages or ()}
    return {entry.name for entry in entries if not entry.recipe and repr(entry.build()) in parts}


WITHIN = within_others(ENTRIES)
"""Compiled within the step of a whole optimizer, and so only in the long profile alone: compilers take their time."""

VARIANTS = {entry.name for entry in ENTRIES if entry.public_name != entry.name} & {
    entry.name for entry in ENTRIES if entry.public_name in {other.name for other in ENTRIES}
}
"""The same under other settings: outside of the long profile compiled once, in float32."""


# What a user writes, held to the same laws: the README promises that this takes one line


def entry_of_the_readme() -> Entry:
    """The transformation of the README by the line that the README gives for it."""
    text = (Path(__file__).parent.parent / "README.md").read_text()
    [code] = [
        block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "ScaleByHeavyBallState" in block
    ]
    [line] = re.findall(r"`(Entry\(.*?\))`", text)
    names: dict[str, Any] = {"mx": mx, "mo": mo, "Entry": Entry}
    exec(compile(code, "README.md", "exec"), names)
    entry = eval(line, names)
    assert isinstance(entry, Entry)
    return entry


@mo.readable
def scale_by_value() -> GradientTransformation:
    """Multiply updates by the value of the loss."""

    def update(updates: Any, state: mo.EmptyState, params: Any = None, *, value: mx.array) -> Any:
        return mo.tree.scale(value, updates), state

    return mo.GradientTransformation(mo.identity().init, update, reach="element")


NEWCOMERS = [
    entry_of_the_readme(),
    Entry(
        "scale_by_value",
        scale_by_value,
        extras=lambda grads: {"value": mo.tree.norm(grads)},
        finite_to=50.0,
        why_less="it multiplies gradients by their norm, also in float16",
    ),
]
