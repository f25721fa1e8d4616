"""Every flag of the program, in one place, and what several flags mean together.

The help texts are what `--help` prints and what docs/reference/command.md lists.
"""

import dataclasses
import pathlib
import re
from typing import TYPE_CHECKING, Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from pneumojax import config as config_lib
from pneumojax import config_files
from pneumojax.errors import UsageError
from pneumojax.runs import layout
from pneumojax.runs.run import Run

if TYPE_CHECKING:
    from pneumojax.prediction.options import Options

CONFIG = config_flags.DEFINE_config_file(
    'config', None,
    f'A name ({", ".join(config_files.names())}) or FILE.py; not needed if the run directory has '
    'one. NAME:folds trains every fold, NAME:fold3 only fold 3.',
)  # fmt: skip
flags.FLAGS['config'].parser = config_files.Parser()
FOLD = flags.DEFINE_string(
    'fold', None, "The number of a fold, or 'all'; NAME:fold3 and NAME:folds set it."
)
WORKDIR = flags.DEFINE_multi_string(
    'workdir', [],
    'Run directory; default: runs/<config.name>. predict: repeat it to average several runs.',
)  # fmt: skip
MODE = flags.DEFINE_enum(
    'mode', 'train', [
        'prepare', 'train', 'evaluate', 'predict', 'serve', 'export', 'convert', 'ablate',
    ],
    'prepare: decode all images into the cache. train: prepare and train, or continue a run. '
    'evaluate: scores, thresholds and pictures of a run. predict: masks of radiographs. '
    'serve: a node that receives radiographs and sends DICOM SEG files to an archive. '
    "export: a run's network for other programs. convert: PyTorch weights into a checkpoint. "
    'ablate: measure what each part contributes.',
)  # fmt: skip
INPUT = flags.DEFINE_string(
    'input', None,
    'predict: the file or folder to read. convert: a .safetensors, .pth or .ckpt file, or '
    "'imagenet'. evaluate: labelled images from elsewhere, to score under the run's own rule.",
)  # fmt: skip
OUTPUT = flags.DEFINE_string(
    'output', None,
    'predict, export, convert, evaluate with --input: the folder to write. serve: of the node.',
)  # fmt: skip

COMPARE = flags.DEFINE_string(
    'compare', None,
    'evaluate: only print how the run differs from this other one (a run directory, an external '
    'evaluation or a per_image.csv) on the same images.',
)  # fmt: skip

COMPILATION_CACHE = flags.DEFINE_string(
    'compilation_cache', None,
    'Folder of compiled programs; default: ~/.cache/pneumojax/compiled; empty: keep none.',
)  # fmt: skip

PROFILE = flags.DEFINE_integer(
    'profile', 0, 'train: trace this many steps into RUN/profile.', lower_bound=0,
    upper_bound=10**9,
)  # fmt: skip

# --- several processes that train one run -------------------------------------------------------
COORDINATOR = flags.DEFINE_string(
    'coordinator', None,
    "HOST:PORT of process 0, with --num_processes and --process_id; or 'auto' on a cluster that "
    'provides them (SLURM, Open MPI, Kubernetes, Cloud TPU). See docs/scaling.md.',
)  # fmt: skip
NUM_PROCESSES = flags.DEFINE_integer(
    'num_processes', None, 'Number of processes that train together.',
    lower_bound=1, upper_bound=1 << 16,
)  # fmt: skip
PROCESS_ID = flags.DEFINE_integer(
    'process_id', None, 'Index of this process, from 0.', lower_bound=0, upper_bound=1 << 16
)

# --- export ------------------------------------------------------------------------------------
FORMAT = flags.DEFINE_enum(
    'format', 'torch', ['torch', 'onnx', 'stablehlo', 'huggingface'],
    "export: 'torch' is a state dict for segmentation_models_pytorch.Unet, 'onnx' is for OpenVINO, "
    "ONNX Runtime and --mode=predict without JAX, 'stablehlo' is for jax.export, 'huggingface' is "
    'a folder with weights, rule and model card, for --mode=predict and to share.',
)  # fmt: skip
SHAPE = flags.DEFINE_string(
    'shape', '',
    "export: BATCH,HEIGHT,WIDTH of the input, each a number or 'any'; default: any,S,S of the run.",
)  # fmt: skip

# --- predict -----------------------------------------------------------------------------------
ACCEPT = flags.DEFINE_enum(
    'accept', 'chest', ['chest', 'any'],
    'predict: chest skips other body parts and views, as tags tell; any predicts them with a note.',
)  # fmt: skip
OUTPUTS = flags.DEFINE_list(
    'outputs', None,
    'predict: which DICOM files to write, some of seg,sr,secondary_capture,gsps; default: seg. All '
    'images get an SR; secondary captures and GSPS are written where an area is marked.',
)  # fmt: skip
SEG = flags.DEFINE_enum(
    'seg', 'binary', ['binary', 'fractional', 'none'],
    'predict: write DICOM SEG files of masks, of probabilities, or none.',
)  # fmt: skip
SEG_FOR = flags.DEFINE_enum(
    'seg_for', 'all', ['all', 'positive'],
    'predict: write SEG files about all images, or only where an area is marked.',
)  # fmt: skip
HEATMAP = flags.DEFINE_bool('heatmap', False, 'predict: also write pictures of the probability.')
OVERLAYS = flags.DEFINE_bool(
    'overlays', True, 'predict: write pictures with the outline of the mask.'
)
REPORT = flags.DEFINE_bool('report', True, 'predict: write report.html.')
SHOW_NAMES = flags.DEFINE_bool('show_names', False, "predict: show patients' names in the report.")
PRIVATE = flags.DEFINE_bool('private', False, 'predict: let only the owner read the output.')
RUNTIME = flags.DEFINE_enum(
    'runtime', 'auto', ['auto', 'jax', 'openvino', 'onnxruntime'],
    'predict: what runs the network. auto: JAX on a GPU or TPU, else OpenVINO or ONNX Runtime if '
    'installed.',
)  # fmt: skip
_PRECISIONS = ['auto', 'bfloat16_checked', 'float32', 'bfloat16']
PRECISION = flags.DEFINE_enum(
    'precision', 'auto', _PRECISIONS,
    'predict: bfloat16_checked is bfloat16, then float32 for masks that are sensitive to rounding. '
    'float32 is not rounded to bfloat16 or TF32 on a TPU or GPU either. '
    'auto: as trained with JAX; bfloat16_checked with OpenVINO where that is faster (AVX512-BF16 '
    'of AMD, AMX of Intel); else float32.',
)  # fmt: skip

# --- serve -------------------------------------------------------------------------------------
NODE = flags.DEFINE_string(
    'node', None, 'serve: the settings, a TOML file; deploy/node.toml explains every key.'
)
DEAD_LETTERS = flags.DEFINE_enum(
    'dead_letters', None, ['list', 'retry'],
    'serve: only list what failed too often in the node of --output, or have it tried again.',
)  # fmt: skip

OLD_VALUES = {'mixed': 'bfloat16_checked'}  # values of --precision that were renamed


class _PrecisionParser(flags.EnumParser):
    """Names the new value where an old one is given."""

    def parse(self, argument: str) -> str:
        """The value; ValueError for an old or an unknown one."""
        if argument in OLD_VALUES:
            raise ValueError(f'this value is now called {OLD_VALUES[argument]}')
        return super().parse(argument)


flags.FLAGS['precision'].parser = _PrecisionParser(_PRECISIONS)

# --- which flag belongs to which mode ----------------------------------------------------------
EXTERNAL, COMPARING = 'evaluate --input', 'evaluate --compare'  # told apart by what is given
_OF_RUNS = ('prepare', 'train', 'evaluate', EXTERNAL, COMPARING, 'predict', 'serve', 'export',
            'ablate')  # fmt: skip
# The modes that read a flag; every mode reads those that are not here.
READ_BY: dict[str, tuple[str, ...]] = {
    'fold': _OF_RUNS,
    'workdir': _OF_RUNS,
    'input': ('predict', 'convert', EXTERNAL),
    'output': ('predict', 'serve', 'export', 'convert', EXTERNAL),
    'compare': (COMPARING,),
    'profile': ('train',),
    **dict.fromkeys(
        ('coordinator', 'num_processes', 'process_id'), ('train', 'prepare', 'evaluate')
    ),
    **dict.fromkeys(('format', 'shape'), ('export',)),
    **dict.fromkeys(('runtime', 'precision'), ('predict', 'serve', EXTERNAL)),
    **dict.fromkeys(('accept', 'outputs', 'seg', 'seg_for'), ('predict', 'serve')),
    **dict.fromkeys(('heatmap', 'overlays', 'report', 'show_names', 'private'), ('predict',)),
    **dict.fromkeys(('node', 'dead_letters'), ('serve',)),
}


def mode() -> str:
    """The mode as `READ_BY` names it."""
    if MODE.value != 'evaluate':
        return MODE.value
    if INPUT.value or OUTPUT.value:
        return EXTERNAL
    return COMPARING if COMPARE.value else 'evaluate'


def require_read() -> None:
    """Raises UsageError for a flag on the command line that the mode would ignore."""
    for name, modes in READ_BY.items():
        if flags.FLAGS[name].present and mode() not in modes:
            default = '' if flags.FLAGS['mode'].present else ', the mode if none is given'
            raise UsageError(
                f'--{name} is not read by --mode={mode()}{default}, only by {", ".join(modes)}; '
                'leave it out, or give another --mode'
            )
    if mode() not in ('predict', 'serve', EXTERNAL):
        return
    for name in flags.FLAGS:
        if name.startswith(('config.evaluation.', 'config.tta.')) and flags.FLAGS[name].present:
            raise UsageError(
                f'--{name} is not read by --mode={mode()}, which goes by the last evaluation of '
                'the run: leave it out, or run --mode=evaluate with it first'
            )


def required(flag: flags.FlagHolder) -> str:
    """The flag's value. UsageError if it is not given."""
    if not flag.value:
        raise UsageError(f'--mode={mode()} needs --{flag.name}')
    return flag.value


def folders() -> tuple[str, str]:
    """--input and --output. UsageError if one is not given."""
    return required(INPUT), required(OUTPUT)


def coordinator() -> tuple[str, int | None, int | None] | None:
    """Arguments of `processes.join`, or None where a single process does it all."""
    if not COORDINATOR.value:
        if NUM_PROCESSES.value is not None or PROCESS_ID.value is not None:
            raise UsageError('--num_processes and --process_id need --coordinator=HOST:PORT')
        return None
    return COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value


def config_and_workdir() -> tuple[ml_collections.ConfigDict, pathlib.Path]:
    """The configuration, checked, and the run directory that the flags name."""
    config, workdirs = CONFIG.value, WORKDIR.value
    if config is None and not workdirs:
        raise UsageError(
            'give --config=configs/NAME.py, or --workdir=RUN of an existing run; '
            'to try everything on drawn images: --config=configs/demo.py'
        )
    if len(workdirs) > 1:
        raise UsageError(f'--mode={MODE.value} takes one --workdir, not {len(workdirs)}')
    workdir = pathlib.Path(workdirs[0] if workdirs else f'runs/{config.name}')
    config = Run(workdir).config() if config is None else config
    if FOLD.value is not None:
        config, workdir = layout.select_fold(config, workdir, FOLD.value)
    config_lib.check(config)
    return config, workdir


def evaluated() -> tuple[ml_collections.ConfigDict | None, Run]:
    """What `--compare` compares: a run with its configuration, or an external evaluation."""
    workdirs = WORKDIR.value
    if len(workdirs) == 1 and CONFIG.value is None:
        folder = Run(workdirs[0])
        if (folder / 'per_image.csv').is_file() and not folder.exists:
            return None, folder
    config, workdir = config_and_workdir()
    return config, Run(workdir)


def trained_runs() -> list[Run]:
    """The run directories that the flags name. UsageError if --config is not theirs."""
    config, runs = CONFIG.value, [Run(path) for path in WORKDIR.value]
    if FOLD.value is not None or not runs:
        config, workdir = config_and_workdir()
        runs = [Run(workdir)]
    for run in runs if config is not None else ():
        run.require_config(config)
    return runs


def prediction_options() -> 'Options':
    """What the flags say that a prediction writes, and what computes it."""
    from pneumojax.prediction.options import Options  # late: --help needs none of it

    names = [field.name for field in dataclasses.fields(Options)]  # each has a flag of its name
    values: dict[str, Any] = {name: flags.FLAGS[name].value for name in names}
    return Options(**values)


def expand_fold(argv: list[str]) -> list[str]:
    """`--config=NAME:fold3` as `--config=NAME --fold=3`, and `NAME:folds` as `--fold=all`."""
    expanded = []
    for before, word in zip([None, *argv], argv, strict=False):
        match = re.fullmatch(r'(.+):fold(s|\d+)', word)
        is_config = before in ('--config', '-config') or word.startswith(('--config=', '-config='))
        if match and is_config:
            expanded += [match[1], '--fold=' + ('all' if match[2] == 's' else match[2])]
        else:
            expanded.append(word)
    return expanded
