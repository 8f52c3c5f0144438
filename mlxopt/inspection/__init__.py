"""Things to look at: what a transformation consists of and remembers, and how a schedule runs."""

from mlxopt.inspection.describing import describe as describe
from mlxopt.inspection.plotting import plot as plot
