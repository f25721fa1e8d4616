"""Pneumothorax segmentation in chest radiographs, in two stages.

  python -m pneumojax.main --config=configs/demo.py                  both stages on drawn images
  python -m pneumojax.main --config=configs/stage1.py --config.data.root=DIR
  python -m pneumojax.main --config=configs/stage2.py --config.data.root=DIR
  python -m pneumojax.main --config=configs/stage1.py:folds --config.data.root=DIR
  python -m pneumojax.main --mode=evaluate --workdir=runs/stage2
  python -m pneumojax.main --mode=predict --workdir=runs/stage2 --input=FOLDER --output=FOLDER
  python -m pneumojax.main --mode=serve --workdir=runs/stage2 --node=node.toml --output=FOLDER

Once installed, `pneumojax --config=demo` does the same as the first command. --help lists all
options. You can change any value of a config: --config.batch_size=8; configs/base.py explains them.
After an interruption, rerun the same command. Exit status: 0 done, 1 the loss is not finite, 2 bad
arguments or data, 3 predicted but some files unreadable or none is a radiograph, 128 + N signal.
"""

if __name__ == '__main__':
    from pneumojax.system import search_path

    search_path.leave_out_working_directory()  # before anything else is imported

from collections.abc import Callable

from absl import flags as absl_flags

from pneumojax import flags
from pneumojax.launch import launch, require_no_words
from pneumojax.runs.run import Run
from pneumojax.runtimes import choose
from pneumojax.system import allocator, compilation, processes

absl_flags.adopt_module_key_flags(flags)  # so that --help lists them


def main(argv: list[str]) -> int:
    """Runs one mode and returns the exit status."""
    require_no_words(argv)
    flags.require_read()
    compilation.keep(flags.COMPILATION_CACHE.value)
    if where := flags.coordinator():
        processes.join(*where)
    if flags.MODE.value in ('train', 'ablate') and not choose.has_accelerator():
        allocator.keep_freed_memory()
    return HANDLERS[flags.MODE.value]() or 0


# --- one function per mode, which imports what it needs only then: --help stays fast --------------


def _prepare() -> None:
    from pneumojax.experiments import stages

    config, workdir = flags.config_and_workdir()
    processes.on_main(lambda: stages.prepare(config, workdir))


def _train() -> None:
    from pneumojax.experiments import stages

    config, workdir = flags.config_and_workdir()
    stages.train(config, workdir, flags.PROFILE.value)  # in all processes


def _evaluate() -> None:
    if flags.mode() == flags.COMPARING:
        from pneumojax.evaluation.comparison import compare

        compare(*flags.evaluated(), flags.required(flags.COMPARE))
    elif flags.mode() == flags.EXTERNAL:
        from pneumojax.prediction import external

        external.evaluate(flags.trained_runs(), *flags.folders(), flags.prediction_options())
    else:
        from pneumojax.experiments import stages

        config, workdir = flags.config_and_workdir()
        processes.on_main(lambda: stages.evaluate(config, workdir))


def _predict() -> int:
    from pneumojax.prediction.predict import predict

    return predict(flags.trained_runs(), *flags.folders(), flags.prediction_options())


def _serve() -> int:
    from pneumojax.serving import serve

    output, options = flags.required(flags.OUTPUT), flags.prediction_options()
    if flags.DEAD_LETTERS.value:
        return serve.dead_letters(output, flags.DEAD_LETTERS.value)
    return serve.serve(flags.trained_runs(), flags.required(flags.NODE), output, options)


def _export() -> None:
    from pneumojax.runtimes.export import export

    (config, workdir), output = flags.config_and_workdir(), flags.required(flags.OUTPUT)
    export(config, Run(workdir), output, flags.FORMAT.value, flags.SHAPE.value)


def _convert() -> None:
    from pneumojax.models.convert import convert

    convert(*flags.folders(), flags.CONFIG.value)


def _ablate() -> None:
    from pneumojax.experiments.ablate import ablate

    ablate(*flags.config_and_workdir())


HANDLERS: dict[str, Callable[[], int | None]] = {
    'prepare': _prepare, 'train': _train, 'evaluate': _evaluate, 'predict': _predict,
    'serve': _serve, 'export': _export, 'convert': _convert, 'ablate': _ablate,
}  # fmt: skip

if __name__ == '__main__':
    launch(main)
