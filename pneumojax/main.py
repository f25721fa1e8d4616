"""Pneumothorax segmentation in chest radiographs, in two stages.

  python -m pneumojax.main --config=configs/demo.py                  both stages on drawn images
  python -m pneumojax.main --config=configs/stage1.py --config.data.root=DIR
  python -m pneumojax.main --config=configs/stage2.py --config.data.root=DIR
  python -m pneumojax.main --config=configs/stage1.py:folds --config.data.root=DIR
  python -m pneumojax.main --mode=evaluate --workdir=runs/stage2
  python -m pneumojax.main --mode=predict --workdir=runs/stage2 --input=FOLDER --output=FOLDER

Installed, `pneumojax` is short for `python -m pneumojax.main`, and --config=demo for its file.
Any value of a config can be changed: --config.batch_size=8. configs/base.py explains them all.
Interrupted? The same command continues. Exit status: 130 or 143 after a signal (training writes a
checkpoint first), 0 done, 1 the loss is not finite, 2 unusable arguments or data,
3 predicted, but some files could not be read.
"""

import os
import pathlib

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # XLA's start-up chatter

from absl import flags as absl_flags

from pneumojax import config as config_lib
from pneumojax import flags
from pneumojax.errors import UsageError
from pneumojax.launch import launch
from pneumojax.runs import layout
from pneumojax.runs.run import Run
from pneumojax.system import compilation, processes

absl_flags.adopt_module_key_flags(flags)  # so that --help lists them


def main(argv: list[str]) -> int:
    """Runs one mode. Rooms are imported late: --help and mistyped flags need none of them."""
    if len(argv) > 1:
        raise UsageError(f'unknown argument {argv[1]!r}; every option starts with --')
    compilation.keep(flags.COMPILATION_CACHE.value)
    mode = flags.MODE.value
    if flags.COORDINATOR.value:
        if mode not in ('train', 'prepare', 'evaluate'):
            raise UsageError(f'--mode={mode} is for one process: leave out --coordinator')
        processes.join(flags.COORDINATOR.value, flags.NUM_PROCESSES.value, flags.PROCESS_ID.value)
    if mode == 'convert':
        from pneumojax.models.convert import convert

        convert(_needed(flags.INPUT), _needed(flags.OUTPUT), flags.CONFIG.value)
    elif mode == 'predict':
        from pneumojax.prediction.predict import Options, predict

        runs = [Run(path) for path in flags.WORKDIR.value] or [Run(_config_and_workdir()[1])]
        options = Options(
            seg=flags.SEG.value,  # type: ignore[arg-type]  # one of the flag's words
            overlays=flags.OVERLAYS.value,
            heatmap=flags.HEATMAP.value,
            report=flags.REPORT.value,
            show_names=flags.SHOW_NAMES.value,
            runtime=flags.RUNTIME.value,
            precision=flags.PRECISION.value,
        )
        return predict(runs, _needed(flags.INPUT), _needed(flags.OUTPUT), options)
    elif mode == 'export':
        from pneumojax.runtimes.export import export

        config, workdir = _config_and_workdir()
        output = _needed(flags.OUTPUT)
        export(config, Run(workdir), output, flags.FORMAT.value, flags.SHAPE.value)
    elif mode == 'evaluate' and flags.COMPARE.value:
        from pneumojax.evaluation.comparison import compare

        config, workdir = _config_and_workdir()
        compare(config, Run(workdir), flags.COMPARE.value)
    else:
        from pneumojax.experiments import ablate, stages

        modes = {'prepare': stages.prepare, 'evaluate': stages.evaluate, 'ablate': ablate.ablate}
        config, workdir = _config_and_workdir()
        if mode == 'train':  # by all processes
            stages.train(config, workdir, flags.PROFILE.value)
        else:
            processes.on_main(lambda: modes[mode](config, workdir))
    return 0


def _needed(flag: absl_flags.FlagHolder) -> str:
    if not flag.value:
        raise UsageError(f'--mode={flags.MODE.value} needs --{flag.name}')
    return flag.value


def _config_and_workdir():
    """The configuration, checked, and the run directory that the flags name."""
    config, workdirs = flags.CONFIG.value, flags.WORKDIR.value
    if config is None and not workdirs:
        raise UsageError(
            'give --config=configs/NAME.py, or --workdir=RUN of an existing run; '
            'to see it all work on drawn images: --config=configs/demo.py'
        )
    if len(workdirs) > 1:
        raise UsageError(f'--mode={flags.MODE.value} takes one --workdir, not {len(workdirs)}')
    workdir = pathlib.Path(workdirs[0] if workdirs else f'runs/{config.name}')
    config = Run(workdir).config() if config is None else config
    if flags.FOLD.value is not None:
        config, workdir = layout.of_fold(config, workdir, flags.FOLD.value)
    config_lib.check(config)
    return config, workdir


if __name__ == '__main__':
    launch(main)
