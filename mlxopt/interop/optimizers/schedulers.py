"""The schedules of ``mlx.optimizers.schedulers``, which are those of this library."""

from mlxopt.schedules import cosine_decay as cosine_decay
from mlxopt.schedules import exponential_decay as exponential_decay
from mlxopt.schedules import join_schedules as join_schedules
from mlxopt.schedules import linear_schedule as linear_schedule
from mlxopt.schedules import step_decay as step_decay
