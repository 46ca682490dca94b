"""One frozen dataclass per task: it is the command line, the TOML file and the record in the run folder.

A task's config is made of groups (dataset, net, training, …); a group is a heading of ``--help`` and a table of
the TOML file. Values are plain (str, int, float, bool, tuples of them), so a config survives JSON unchanged.
Only the standard library is imported here: a login node reads configs without torch or numpy.
"""

from segdist.config.conform import conform
from segdist.config.dataset import DatasetConfig, NetConfig
from segdist.config.evaluation import EvaluationConfig, check_inference_mode
from segdist.config.export import ExportOptions
from segdist.config.files import read_text, read_toml, to_plain
from segdist.config.quantization import QuantizationConfig
from segdist.config.runtime import RuntimeConfig
from segdist.config.settle import expand_home, settle
from segdist.config.tasks import (
    TASKS,
    EvaluateConfig,
    ExportConfig,
    PipelineConfig,
    QuantizeConfig,
    TaskConfig,
    TrainConfig,
    TuneConfig,
    task_of,
)
from segdist.config.training import TrainingConfig
from segdist.config.tuning import TuningConfig
from segdist.config.values import (
    INT8_SUFFIX,
    SCENES,
    STRIDE,
    ConfigError,
    ModelName,
    PathText,
    ShellText,
    parse_size,
    require,
)

__all__ = [
    "INT8_SUFFIX",
    "SCENES",
    "STRIDE",
    "TASKS",
    "ConfigError",
    "DatasetConfig",
    "EvaluateConfig",
    "EvaluationConfig",
    "ExportConfig",
    "ExportOptions",
    "ModelName",
    "NetConfig",
    "PathText",
    "PipelineConfig",
    "QuantizationConfig",
    "QuantizeConfig",
    "RuntimeConfig",
    "ShellText",
    "TaskConfig",
    "TrainConfig",
    "TrainingConfig",
    "TuneConfig",
    "TuningConfig",
    "check_inference_mode",
    "conform",
    "expand_home",
    "parse_size",
    "read_text",
    "read_toml",
    "require",
    "settle",
    "task_of",
    "to_plain",
]
