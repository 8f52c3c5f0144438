"""Interoperation with ``mlx.optimizers`` and ``mlx.nn``, both ways."""

from mlxopt.interop import optimizers as optimizers
from mlxopt.interop.modules import functional as functional
from mlxopt.interop.unwrapping import from_optimizer as from_optimizer
from mlxopt.interop.wrapping import as_optimizer as as_optimizer
