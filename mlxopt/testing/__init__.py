"""The laws of this library for transformations and schedules of your own; needs hypothesis."""

from mlxopt.testing.checking import LawBrokenError as LawBrokenError
from mlxopt.testing.checking import cases as cases
from mlxopt.testing.checking import check as check
from mlxopt.testing.checking import laws as laws
from mlxopt.testing.problems import Problem as Problem
from mlxopt.testing.schedules import check_schedule as check_schedule
from mlxopt.testing.strategies import counts as counts
from mlxopt.testing.strategies import gradients as gradients
from mlxopt.testing.strategies import hyperparameters as hyperparameters
from mlxopt.testing.strategies import problems as problems
from mlxopt.testing.strategies import schedules as schedules
from mlxopt.testing.strategies import trees as trees
from mlxopt.testing.trajectories import check_trajectory as check_trajectory
from mlxopt.testing.trajectories import save_trajectory as save_trajectory
