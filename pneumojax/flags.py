"""Every flag of the program, in one place; what they say is the `--help`."""

import re

from absl import flags
from ml_collections import config_flags

from pneumojax import config_files

CONFIG = config_flags.DEFINE_config_file(
    'config', None,
    f'A name ({", ".join(config_files.names())}) or FILE.py; may be left out where the run '
    'directory has one. NAME:folds trains every fold, NAME:fold3 only that one of them.',
)  # fmt: skip
flags.FLAGS['config'].parser = config_files.Parser()
FOLD = flags.DEFINE_string('fold', None, 'What :folds and :fold3 are short for: all, or a number.')
WORKDIR = flags.DEFINE_multi_string(
    'workdir', [],
    'Run directory; default runs/<config.name>. predict: repeat it to average several runs.',
)  # fmt: skip
MODE = flags.DEFINE_enum(
    'mode', 'train', ['prepare', 'train', 'evaluate', 'predict', 'export', 'convert', 'ablate'],
    'prepare: decode all images into the cache. train: (prepare and) train, or continue. '
    'evaluate: figures, thresholds and pictures of a run. predict: masks of radiographs. '
    "export: a run's network for other programs. convert: PyTorch weights into a checkpoint. "
    'ablate: what each part is worth.',
)  # fmt: skip
INPUT = flags.DEFINE_string(
    'input', None, "predict: a file or folder. convert: a .safetensors or .pth file, or 'imagenet'."
)
OUTPUT = flags.DEFINE_string('output', None, 'predict, export, convert: the folder to write.')

COMPARE = flags.DEFINE_string(
    'compare', None,
    'evaluate: only print by how much an evaluated run differs from this other one, a run '
    'directory or a per_image.csv, on the same images.',
)  # fmt: skip

COMPILATION_CACHE = flags.DEFINE_string(
    'compilation_cache', None,
    'Folder that keeps compiled programs for the next start; default: ~/.cache/pneumojax/compiled; '
    'empty: none.',
)  # fmt: skip

PROFILE = flags.DEFINE_integer(
    'profile', 0, 'train: so many steps are traced into RUN/profile.', lower_bound=0
)  # fmt: skip

# --- several processes that train one run -------------------------------------------------------
COORDINATOR = flags.DEFINE_string(
    'coordinator', None,
    "HOST:PORT of process 0, with the two below; or 'auto' where the cluster tells (SLURM, Open "
    'MPI, Kubernetes, Cloud TPU). See docs/scaling.md.',
)  # fmt: skip
NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'How many processes train together.')
PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Which of them this is, from 0.')

# --- export ------------------------------------------------------------------------------------
FORMAT = flags.DEFINE_enum(
    'format', 'torch', ['torch', 'onnx', 'stablehlo'],
    "export: 'torch', a state dict for segmentation_models_pytorch.Unet('resnet34'); 'onnx', for "
    "OpenVINO, ONNX Runtime and --mode=predict without JAX; 'stablehlo', for jax.export.",
)  # fmt: skip
SHAPE = flags.DEFINE_string(
    'shape', '',
    "export: BATCH,HEIGHT,WIDTH of the input, each a number or 'any'; default any,S,S of the run.",
)  # fmt: skip

# --- predict -----------------------------------------------------------------------------------
SEG = flags.DEFINE_enum(
    'seg', 'binary', ['binary', 'fractional', 'none'],
    'predict: DICOM SEG files of masks, of probabilities, or none.',
)  # fmt: skip
HEATMAP = flags.DEFINE_bool('heatmap', False, 'predict: also write pictures of the probability.')
OVERLAYS = flags.DEFINE_bool('overlays', True, 'predict: write pictures of the outlines.')
REPORT = flags.DEFINE_bool('report', True, 'predict: write report.html.')
SHOW_NAMES = flags.DEFINE_bool('show_names', False, "predict: patients' names in the report.")
RUNTIME = flags.DEFINE_enum(
    'runtime', 'auto', ['auto', 'jax', 'openvino', 'onnxruntime'],
    'predict: what computes. auto: OpenVINO or ONNX Runtime where installed and there is no GPU or '
    'TPU, else JAX.',
)  # fmt: skip
PRECISION = flags.DEFINE_enum(
    'precision', 'auto', ['auto', 'mixed', 'float32', 'bfloat16'],
    'predict: mixed is bfloat16, and float32 where the mask hangs on rounding. auto: mixed where '
    'OpenVINO finds bfloat16 in the processor, else float32; with JAX as trained.',
)  # fmt: skip


def spell_out(argv: list[str]) -> list[str]:
    """`--config=NAME.py:fold3` as `--config=NAME.py --fold=3`, and `:folds` as `--fold=all`."""
    spelt = []
    for before, word in zip([None, *argv], argv, strict=False):
        match = re.fullmatch(r'(.+):fold(s|\d+)', word)
        if match and (word.startswith(('--config=', '-config=')) or before in _CONFIG):
            spelt += [match[1], '--fold=' + ('all' if match[2] == 's' else match[2])]
        else:
            spelt.append(word)
    return spelt


_CONFIG = ('--config', '-config')
