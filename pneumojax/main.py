"""Pneumothorax segmentation in chest radiographs, in two stages.

  python -m pneumojax.main --config=configs/demo.py                  both stages on drawn images
  python -m pneumojax.main --config=configs/stage1.py --config.data.root=DIR
  python -m pneumojax.main --config=configs/stage2.py --config.data.root=DIR
  python -m pneumojax.main --mode=evaluate --workdir=runs/stage2

Any value of a config can be changed: --config.batch_size=8. configs/base.py explains them all.
Interrupted? The same command continues. Exit status: 0 done, 2 unusable arguments or data.
"""

import os
import pathlib
import sys

# Configs import one another as `configs.NAME`, wherever the program is started from.
sys.path.append(str(pathlib.Path(__file__).parents[1]))
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # XLA's start-up chatter

from absl import app, flags
from ml_collections import config_flags

from pneumojax import config as config_lib
from pneumojax.errors import UsageError
from pneumojax.progress import show_log
from pneumojax.run import Run

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'configs/NAME.py; may be left out where the run directory has one.'
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Run directory; default runs/<config.name>.')
_MODE = flags.DEFINE_enum(
    'mode', 'train', ['prepare', 'train', 'evaluate', 'export', 'convert'],
    'prepare: decode all images into the cache. train: (prepare and) train, or continue. '
    'evaluate: figures, thresholds and pictures of a run. export: a run\'s network for other '
    'programs, to --output. convert: PyTorch weights, --input, into a checkpoint, --output.',
)  # fmt: skip
_INPUT = flags.DEFINE_string('input', None, "convert: a .safetensors or .pth file, or 'imagenet'.")
_OUTPUT = flags.DEFINE_string('output', None, 'export, convert: the folder to write.')
_FORMAT = flags.DEFINE_enum(
    'format', 'torch', ['torch'],
    "export: 'torch', a state dict for segmentation_models_pytorch.Unet('resnet34').",
)  # fmt: skip


def main(argv: list[str]) -> None:
    """Runs one mode."""
    if len(argv) > 1:
        raise UsageError(f'unknown argument {argv[1]!r}; every option starts with --')
    mode = _MODE.value
    if mode == 'convert':
        from pneumojax.models.convert import convert

        convert(_needed('input', _INPUT.value), _needed('output', _OUTPUT.value), _CONFIG.value)
        return
    config, workdir = _config_and_workdir()
    config_lib.check(config)
    if mode == 'export':
        from pneumojax.inference.export import export

        export(config, Run(workdir), _needed('output', _OUTPUT.value))
        return
    from pneumojax.training import stages  # late: --help and mistyped flags need none of it

    modes = {'prepare': stages.prepare, 'train': stages.train, 'evaluate': stages.evaluate}
    modes[mode](config, workdir)


def _needed(flag: str, value: str | None) -> str:
    if not value:
        raise UsageError(f'--mode={_MODE.value} needs --{flag}')
    return value


def _config_and_workdir():
    """The configuration and the run directory that the flags name."""
    config = _CONFIG.value
    if config is None and _WORKDIR.value is None:
        raise UsageError(
            'give --config=configs/NAME.py, or --workdir=RUN of an existing run; '
            'to see it all work on drawn images: --config=configs/demo.py'
        )
    workdir = pathlib.Path(_WORKDIR.value or f'runs/{config.name}')
    return (Run(workdir).config() if config is None else config), workdir


def parse_flags(argv: list[str]) -> list[str]:
    """As absl's own, but every mistake is one line and exit status 2."""
    try:
        rest = flags.FLAGS(argv)
        if _CONFIG.value is not None:
            _ = _CONFIG.value.name  # a file that could not be loaded complains only when it is used
        return rest
    except flags.Error as e:
        message = str(e)
    except (AttributeError, KeyError, TypeError, ValueError, OSError, ImportError) as e:
        message = f'--config: {e}'  # a file that is missing or broken, an unknown key, a bad value
    return sys.exit(_complain(message))


def _complain(message: str) -> int:
    print(f'pneumojax: {" ".join(message.split())}', file=sys.stderr)
    return 2


def run() -> None:
    """The program: modes and their errors, as lines and exit statuses."""
    show_log()

    def guarded(argv):
        try:
            main(argv)
        except UsageError as e:
            sys.exit(_complain(str(e)))
        except FloatingPointError as e:
            sys.exit(f'pneumojax: {e}')

    app.run(guarded, flags_parser=parse_flags)


if __name__ == '__main__':
    run()
