"""Whole runs in one safetensors file."""

from mlxopt.checkpoint.archive import CheckpointError as CheckpointError
from mlxopt.checkpoint.archive import Contents as Contents
from mlxopt.checkpoint.archive import MismatchError as MismatchError
from mlxopt.checkpoint.archive import contents as contents
from mlxopt.checkpoint.archive import differences as differences
from mlxopt.checkpoint.archive import load as load
from mlxopt.checkpoint.archive import save as save
