"""Schedules: functions from a count of updates to a value."""

from mlxopt.schedules.combinators import clipped as clipped
from mlxopt.schedules.combinators import repeated as repeated
from mlxopt.schedules.combinators import scaled as scaled
from mlxopt.schedules.combinators import shifted as shifted
from mlxopt.schedules.combinators import with_warmup as with_warmup
from mlxopt.schedules.curve import Curve as Curve
from mlxopt.schedules.cycles import cosine_onecycle_schedule as cosine_onecycle_schedule
from mlxopt.schedules.cycles import linear_onecycle_schedule as linear_onecycle_schedule
from mlxopt.schedules.cycles import sgdr_schedule as sgdr_schedule
from mlxopt.schedules.decay import constant_schedule as constant_schedule
from mlxopt.schedules.decay import cosine_decay as cosine_decay
from mlxopt.schedules.decay import cosine_decay_schedule as cosine_decay_schedule
from mlxopt.schedules.decay import exponential_decay as exponential_decay
from mlxopt.schedules.decay import linear_schedule as linear_schedule
from mlxopt.schedules.decay import linear_to_zero as linear_to_zero
from mlxopt.schedules.decay import polynomial_schedule as polynomial_schedule
from mlxopt.schedules.decay import rex_schedule as rex_schedule
from mlxopt.schedules.decay import step_decay as step_decay
from mlxopt.schedules.joining import join_schedules as join_schedules
from mlxopt.schedules.joining import piecewise_constant_schedule as piecewise_constant_schedule
from mlxopt.schedules.joining import piecewise_interpolate_schedule as piecewise_interpolate_schedule
from mlxopt.schedules.warmup import inverse_sqrt_schedule as inverse_sqrt_schedule
from mlxopt.schedules.warmup import warmup_constant_schedule as warmup_constant_schedule
from mlxopt.schedules.warmup import warmup_cosine_decay_schedule as warmup_cosine_decay_schedule
from mlxopt.schedules.warmup import warmup_exponential_decay_schedule as warmup_exponential_decay_schedule
from mlxopt.schedules.warmup import wsd_schedule as wsd_schedule
