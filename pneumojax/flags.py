"""Every flag of the program, in one place; what they say is the `--help`."""

from absl import flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'configs/NAME.py; may be left out where the run directory has one.'
)
WORKDIR = flags.DEFINE_multi_string(
    'workdir', [],
    'Run directory; default runs/<config.name>. predict: repeat it to average several runs.',
)  # fmt: skip
MODE = flags.DEFINE_enum(
    'mode', 'train', ['prepare', 'train', 'evaluate', 'predict', 'export', 'convert'],
    'prepare: decode all images into the cache. train: (prepare and) train, or continue. '
    'evaluate: figures, thresholds and pictures of a run. predict: masks of radiographs. '
    "export: a run's network for other programs. convert: PyTorch weights into a checkpoint.",
)  # fmt: skip
INPUT = flags.DEFINE_string(
    'input', None, "predict: a file or folder. convert: a .safetensors or .pth file, or 'imagenet'."
)
OUTPUT = flags.DEFINE_string('output', None, 'predict, export, convert: the folder to write.')

# --- export ------------------------------------------------------------------------------------
FORMAT = flags.DEFINE_enum(
    'format', 'torch', ['torch'],
    "export: 'torch', a state dict for segmentation_models_pytorch.Unet('resnet34').",
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
