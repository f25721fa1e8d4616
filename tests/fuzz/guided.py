"""One target, guided by coverage of the package's own code (atheris; it is not a dependency).

    pip install atheris && python -m tests.fuzz.guided rle -runs=100000 [-max_total_time=600]

What follows the target's name goes to libFuzzer. Native decoders are not instrumented: `run` finds
more there. Only targets of a single file can be guided: dicom, picture, masks_csv, patients_csv,
config, safetensors, and rle (the text alone).
"""

import logging
import pathlib
import sys
import tempfile

import atheris

with atheris.instrument_imports(include=['pneumojax', 'safetensors', 'pydicom.filereader']):
    from tests.fuzz import worker

    for _module in ('dicom_files', 'pictures', 'texts', 'runs', 'weights'):
        __import__(f'tests.fuzz.{_module}')


def main() -> None:
    """Runs until libFuzzer is done or a case breaks something, which it saves."""
    name, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix='fuzz-') as folder:
        target = worker.make_target(name, pathlib.Path(folder))
        corpus = pathlib.Path(folder) / 'corpus'
        corpus.mkdir()
        case = {}
        for index in range(200):
            case = target.make(worker.generator(0, name, index))
            (corpus / str(index)).write_bytes(next(iter(case.values())))
        key, *others = case
        logging.disable(logging.CRITICAL)

        def try_one(data: bytes) -> None:
            data = data.decode('utf-8', 'ignore').encode() if name == 'rle' else data
            kind, happened = worker.judge(target, {key: data, **{k: case[k] for k in others}})
            if kind != 'fine':
                raise RuntimeError(f'{kind}: {happened}')

        atheris.Setup([sys.argv[0], *options, str(corpus)], try_one)
        atheris.Fuzz()


if __name__ == '__main__':
    main()
