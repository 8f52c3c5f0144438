"""Several machines: gradients averaged over ranks, states shared out, steps taken alone, checkpoints in parts."""

from mlxopt.distributed.agreement import DisagreementError as DisagreementError
from mlxopt.distributed.averaging import average_gradients as average_gradients
from mlxopt.distributed.exchange import Exchange as Exchange
from mlxopt.distributed.local import LocalStepsState as LocalStepsState
from mlxopt.distributed.local import local_steps as local_steps
from mlxopt.distributed.losses import Averaged as Averaged
from mlxopt.distributed.replicas import ReplicaError as ReplicaError
from mlxopt.distributed.replicas import check_replicas as check_replicas
from mlxopt.distributed.replicas import replicate as replicate
from mlxopt.distributed.saving import load as load
from mlxopt.distributed.saving import save as save
from mlxopt.distributed.sharding import ShardedState as ShardedState
from mlxopt.distributed.sharding import shard as shard
from mlxopt.distributed.waiting import deadline as deadline
