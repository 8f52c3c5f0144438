"""Transformations: one file for each thing done to an update."""

from mlxopt.transforms.centering import centralize as centralize
from mlxopt.transforms.clipping import ClipByGlobalNormState as ClipByGlobalNormState
from mlxopt.transforms.clipping import clip as clip
from mlxopt.transforms.clipping import clip_by_block_rms as clip_by_block_rms
from mlxopt.transforms.clipping import clip_by_global_norm as clip_by_global_norm
from mlxopt.transforms.decay import AddDecayedWeightsState as AddDecayedWeightsState
from mlxopt.transforms.decay import add_decayed_weights as add_decayed_weights
from mlxopt.transforms.guards import ZeroNansState as ZeroNansState
from mlxopt.transforms.guards import zero_nans as zero_nans
from mlxopt.transforms.momentum import EmaState as EmaState
from mlxopt.transforms.momentum import TraceState as TraceState
from mlxopt.transforms.momentum import ema as ema
from mlxopt.transforms.momentum import trace as trace
from mlxopt.transforms.noise import AddNoiseState as AddNoiseState
from mlxopt.transforms.noise import add_noise as add_noise
from mlxopt.transforms.orthogonalization import orthogonalize as orthogonalize
from mlxopt.transforms.orthogonalization import scale_by_shape as scale_by_shape
from mlxopt.transforms.scaling import ScaleByLearningRateState as ScaleByLearningRateState
from mlxopt.transforms.scaling import ScaleByScheduleState as ScaleByScheduleState
from mlxopt.transforms.scaling import scale as scale
from mlxopt.transforms.scaling import scale_by_learning_rate as scale_by_learning_rate
from mlxopt.transforms.scaling import scale_by_param_block_norm as scale_by_param_block_norm
from mlxopt.transforms.scaling import scale_by_param_block_rms as scale_by_param_block_rms
from mlxopt.transforms.scaling import scale_by_schedule as scale_by_schedule
from mlxopt.transforms.scaling import scale_by_sign as scale_by_sign
