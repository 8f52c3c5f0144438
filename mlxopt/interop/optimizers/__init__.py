"""A drop-in for ``mlx.optimizers``, made of the transformations of this library."""

from mlxopt.interop.optimizers import schedulers as schedulers
from mlxopt.interop.optimizers.adam import Adam as Adam
from mlxopt.interop.optimizers.adam import Adamax as Adamax
from mlxopt.interop.optimizers.adam import AdamW as AdamW
from mlxopt.interop.optimizers.adam import Lion as Lion
from mlxopt.interop.optimizers.base import Optimizer as Optimizer
from mlxopt.interop.optimizers.clipping import clip_grad_norm as clip_grad_norm
from mlxopt.interop.optimizers.gradient import SGD as SGD
from mlxopt.interop.optimizers.gradient import AdaDelta as AdaDelta
from mlxopt.interop.optimizers.gradient import Adagrad as Adagrad
from mlxopt.interop.optimizers.gradient import RMSprop as RMSprop
from mlxopt.interop.optimizers.matrix import Adafactor as Adafactor
from mlxopt.interop.optimizers.matrix import Muon as Muon
from mlxopt.interop.optimizers.multi import MultiOptimizer as MultiOptimizer
from mlxopt.schedules import cosine_decay as cosine_decay
from mlxopt.schedules import exponential_decay as exponential_decay
from mlxopt.schedules import join_schedules as join_schedules
from mlxopt.schedules import linear_schedule as linear_schedule
from mlxopt.schedules import step_decay as step_decay
