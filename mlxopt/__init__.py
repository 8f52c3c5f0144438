"""Composable gradient transformations for MLX."""

from mlxopt import tree as tree
from mlxopt.base import stateless as stateless
