"""The process that tries cases: it may crash, hang or eat memory, and only it."""

import contextlib
import faulthandler
import importlib
import os
import pathlib
import resource
import shutil
import sys
import traceback
import warnings

import numpy as np

ADDRESS_SPACE = 4 << 30  # bytes beyond what the process has when it begins
MEMORY = 768 << 20  # bytes of resident memory that one case may add

# name -> (module, share of the cases)
TARGETS = {
    'dicom': ('dicom_files', 0.38),
    'picture': ('pictures', 0.12),
    'rle': ('texts', 0.12),
    'masks_csv': ('texts', 0.05),
    'patients_csv': ('texts', 0.04),
    'config': ('runs', 0.04),
    'small_json': ('runs', 0.05),
    'prediction': ('predictions', 0.03),
    'checkpoint': ('runs', 0.02),
    'safetensors': ('weights', 0.03),
    'pickled': ('weights', 0.04),
    'broken': ('test_fuzz', 0.0),  # what the driver itself is tested with
    # Below are younger ones: a case's randomness depends on the place of its target in this list.
    'segmentation': ('masks', 0.03),
    'names': ('masks', 0.02),
    'convert': ('conversions', 0.01),
    'export': ('conversions', 0.01),
    'table': ('texts', 0.01),
}
PROGRAM = tuple(name for name in TARGETS if name != 'broken')  # what the program is tested with


class Wrong(AssertionError):
    """A success that is none."""


def make_target(name: str, scratch: pathlib.Path):
    """The target of a name, with its seeds."""
    module = importlib.import_module(f'tests.fuzz.{TARGETS[name][0]}')
    folder = scratch / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return module.MAKE[name](folder)


def generator(seed: int, name: str, index: int) -> np.random.Generator:
    """The randomness of one case: the same for any number of workers and cases."""
    return np.random.default_rng([seed, list(TARGETS).index(name), index])


def peak_bytes() -> int:
    """The highest resident memory since `forget_peak`."""
    status = pathlib.Path('/proc/self/status').read_text()
    return int(status.split('VmHWM:')[1].split()[0]) << 10


def forget_peak() -> None:
    """Makes the kernel count the highest resident memory from now."""
    with contextlib.suppress(OSError):
        pathlib.Path('/proc/self/clear_refs').write_text('5')


def judge(target, case: dict[str, bytes]) -> tuple[str, str]:
    """Tries one case: ('fine' or what is wrong, what happened)."""
    forget_peak()
    before = peak_bytes()
    try:
        happened = target.check(case)
    except Wrong as error:
        return 'wrong success', str(error)
    except BaseException as error:
        kind = 'memory' if isinstance(error, MemoryError) else 'undocumented error'
        return kind, f'{type(error).__name__}: {error}\n{traceback.format_exc(limit=-6)}'
    added = peak_bytes() - before
    if added > MEMORY:
        return 'memory', f'{added >> 20} MiB more ({happened})'
    return 'fine', happened


def refused(error: BaseException) -> str:
    """How a documented refusal is counted; one that hides a want of memory is none."""
    text, cause = str(error), error
    while cause is not None:
        if isinstance(cause, MemoryError):
            raise MemoryError(f'hidden in: {text}')
        cause = cause.__cause__ or cause.__context__
    if '\n' in text.strip():
        raise Wrong(f'a message of several lines: {text!r}')
    if 'zzname' in text.lower():
        raise Wrong(f'a message that names the patient: {text!r}')
    return f'refused: {type(error).__name__}'


def work(connection, seed: int, scratch: str) -> None:
    """Answers (target, index) with (kind, what happened) until it is sent None."""
    scratch = pathlib.Path(scratch)
    scratch.mkdir(parents=True, exist_ok=True)
    streams = os.open(scratch / 'streams.txt', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(streams, 1)
    os.dup2(streams, 2)
    faulthandler.enable()
    warnings.simplefilter('ignore')
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    targets = {}
    while (order := connection.recv()) is not None:
        name, index = order
        if name not in targets:
            try:
                targets[name] = make_target(name, scratch)
            except BaseException:
                connection.send(('no target', traceback.format_exc()))
                raise
            connection.send(('ready', ''))
            _limit()
        case = targets[name].make(generator(seed, name, index))
        keep(scratch / 'case', case)
        connection.send(judge(targets[name], case))
        sys.stdout.flush()


def keep(folder: pathlib.Path, case: dict[str, bytes]) -> None:
    """Writes a case's files, so that they outlive the process."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in case.items():
        (folder / name.replace('/', '%')).write_bytes(content)


def _limit() -> None:
    """The address space may grow by so much from here on."""
    pages = int(pathlib.Path('/proc/self/statm').read_text().split()[0])
    limit = pages * resource.getpagesize() + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
