"""Pneumothorax segmentation in chest radiographs, in two stages.

  python -m pneumojax.main --config=configs/demo.py                  both stages on drawn images
  python -m pneumojax.main --config=configs/stage1.py --config.data.root=DIR
  python -m pneumojax.main --config=configs/stage2.py --config.data.root=DIR
  python -m pneumojax.main --mode=evaluate --workdir=runs/stage2
  python -m pneumojax.main --mode=predict --workdir=runs/stage2 --input=FOLDER --output=FOLDER

Any value of a config can be changed: --config.batch_size=8. configs/base.py explains them all.
Interrupted? The same command continues. Exit status: 0 done, 2 unusable arguments or data,
3 predicted, but some files could not be read.
"""

import os
import pathlib
import sys

# Configs import one another as `configs.NAME`, wherever the program is started from.
sys.path.append(str(pathlib.Path(__file__).parents[1]))
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # XLA's start-up chatter

from absl import flags
from ml_collections import config_flags

from pneumojax import config as config_lib
from pneumojax.errors import UsageError
from pneumojax.launch import launch
from pneumojax.run import Run

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'configs/NAME.py; may be left out where the run directory has one.'
)
_WORKDIRS = flags.DEFINE_multi_string(
    'workdir', [],
    'Run directory; default runs/<config.name>. predict: repeat it to average several runs.',
)  # fmt: skip
_MODE = flags.DEFINE_enum(
    'mode', 'train', ['prepare', 'train', 'evaluate', 'predict', 'export', 'convert'],
    'prepare: decode all images into the cache. train: (prepare and) train, or continue. '
    'evaluate: figures, thresholds and pictures of a run. predict: masks of radiographs. '
    "export: a run's network for other programs. convert: PyTorch weights into a checkpoint.",
)  # fmt: skip
_INPUT = flags.DEFINE_string(
    'input', None, "predict: a file or folder. convert: a .safetensors or .pth file, or 'imagenet'."
)
_OUTPUT = flags.DEFINE_string('output', None, 'predict, export, convert: the folder to write.')
_FORMAT = flags.DEFINE_enum(
    'format', 'torch', ['torch'],
    "export: 'torch', a state dict for segmentation_models_pytorch.Unet('resnet34').",
)  # fmt: skip
_SEG = flags.DEFINE_enum(
    'seg', 'binary', ['binary', 'fractional', 'none'],
    'predict: DICOM SEG files of masks, of probabilities, or none.',
)  # fmt: skip
_HEATMAP = flags.DEFINE_bool('heatmap', False, 'predict: also write pictures of the probability.')
_OVERLAYS = flags.DEFINE_bool('overlays', True, 'predict: write pictures of the outlines.')
_REPORT = flags.DEFINE_bool('report', True, 'predict: write report.html.')
_SHOW_NAMES = flags.DEFINE_bool('show_names', False, "predict: patients' names in the report.")


def main(argv: list[str]) -> int:
    """Runs one mode. Rooms are imported late: --help and mistyped flags need none of them."""
    if len(argv) > 1:
        raise UsageError(f'unknown argument {argv[1]!r}; every option starts with --')
    mode = _MODE.value
    if mode == 'convert':
        from pneumojax.models.convert import convert

        convert(_needed('input', _INPUT.value), _needed('output', _OUTPUT.value), _CONFIG.value)
    elif mode == 'predict':
        from pneumojax.inference.predict import Options, predict

        runs = [Run(path) for path in _WORKDIRS.value] or [Run(_config_and_workdir()[1])]
        options = Options(
            _SEG.value, _OVERLAYS.value, _HEATMAP.value, _REPORT.value, _SHOW_NAMES.value
        )
        source, output = _needed('input', _INPUT.value), _needed('output', _OUTPUT.value)
        return predict(runs, source, output, options)
    elif mode == 'export':
        from pneumojax.inference.export import export

        config, workdir = _config_and_workdir()
        export(config, Run(workdir), _needed('output', _OUTPUT.value))
    else:
        from pneumojax.training import stages

        modes = {'prepare': stages.prepare, 'train': stages.train, 'evaluate': stages.evaluate}
        modes[mode](*_config_and_workdir())
    return 0


def _needed(flag: str, value: str | None) -> str:
    if not value:
        raise UsageError(f'--mode={_MODE.value} needs --{flag}')
    return value


def _config_and_workdir():
    """The configuration, checked, and the run directory that the flags name."""
    config, workdirs = _CONFIG.value, _WORKDIRS.value
    if config is None and not workdirs:
        raise UsageError(
            'give --config=configs/NAME.py, or --workdir=RUN of an existing run; '
            'to see it all work on drawn images: --config=configs/demo.py'
        )
    if len(workdirs) > 1:
        raise UsageError(f'--mode={_MODE.value} takes one --workdir, not {len(workdirs)}')
    workdir = pathlib.Path(workdirs[0] if workdirs else f'runs/{config.name}')
    config = Run(workdir).config() if config is None else config
    config_lib.check(config)
    return config, workdir


if __name__ == '__main__':
    launch(main, _CONFIG)
