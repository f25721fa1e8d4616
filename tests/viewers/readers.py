"""Reads the studies of `tests.viewers.studies` with other programs, and compares with mask.raw.

    python -m tests.viewers.readers FOLDER [BIN]

BIN is the folder with the programs of `pip install dcmqi`, and with a Python that has pydicom-seg,
which needs pydicom 2 and so an environment of its own: pip install dcmqi pydicom-seg 'pydicom<3'.
"""

import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable

import highdicom
import numpy as np
import pydicom
import SimpleITK

PYDICOM_SEG = """
import sys, pydicom, pydicom_seg
read = pydicom_seg.SegmentReader().read(pydicom.dcmread(sys.argv[1]))
sys.stdout.buffer.write(read.segment_data(1).astype('uint8').tobytes())
"""


def by_pydicom(study: pathlib.Path) -> np.ndarray:
    """The pixels of the only frame."""
    return pydicom.dcmread(study / 'seg.dcm').pixel_array


def by_highdicom(study: pathlib.Path) -> np.ndarray:
    """The mask of the pixels of the radiograph."""
    instance = pydicom.dcmread(study / 'image.dcm').SOPInstanceUID
    return highdicom.seg.segread(study / 'seg.dcm').get_pixels_by_source_instance([instance])


def by_simpleitk(study: pathlib.Path) -> np.ndarray:
    """An image with one slice, 0 and 255."""
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(study / 'seg.dcm'))) > 0


def by_dcmqi(study: pathlib.Path, programs: pathlib.Path) -> np.ndarray:
    """What segimage2itkimage converts to NRRD."""
    with tempfile.TemporaryDirectory() as folder:
        _run(
            programs / 'segimage2itkimage', '--inputDICOM', study / 'seg.dcm',
            '--outputDirectory', folder, '--outputType', 'nrrd', '--prefix', 'x',
        )  # fmt: skip
        (made,) = pathlib.Path(folder).glob('*.nrrd')
        return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(made)))


def by_pydicom_seg(study: pathlib.Path, programs: pathlib.Path) -> np.ndarray:
    """The data of the only segment."""
    return np.frombuffer(_run(programs / 'python', '-c', PYDICOM_SEG, study / 'seg.dcm'), np.uint8)


def report_by_dcmqi(study: pathlib.Path, programs: pathlib.Path) -> str:
    """How many measurement groups tid1500reader finds in the report."""
    with tempfile.NamedTemporaryFile() as made:
        _run(
            programs / 'tid1500reader', '--inputDICOM', study / 'sr.dcm',
            '--outputMetadata', made.name,
        )  # fmt: skip
        return f'{made.read().count(b"TrackingUniqueIdentifier")} group of measurements'


def main(folder: str, programs: str = '') -> None:
    """Prints what each reader finds in each study."""
    readers: dict[str, Callable[[pathlib.Path], np.ndarray | str]] = {
        'pydicom': by_pydicom, 'highdicom': by_highdicom, 'SimpleITK': by_simpleitk,
    }  # fmt: skip
    if programs:
        bin_ = pathlib.Path(programs)
        readers['dcmqi'] = lambda study: by_dcmqi(study, bin_)
        readers['dcmqi, report'] = lambda study: report_by_dcmqi(study, bin_)
        readers['pydicom-seg'] = lambda study: by_pydicom_seg(study, bin_)
    for study in sorted(pathlib.Path(folder).glob('[0-9]*')):
        mask = np.frombuffer((study / 'mask.raw').read_bytes(), np.uint8)
        for name, read in readers.items():
            try:
                found = read(study)
            except Exception as error:
                said = f'FAILS: {str(error).strip().splitlines()[-1]}'
            else:
                said = found if isinstance(found, str) else _compared(found, mask)
            print(f'{study.name}: {name}: {said}')


def _compared(found: np.ndarray, mask: np.ndarray) -> str:
    return 'same' if np.array_equal(found.ravel(), mask) else 'DIFFERENT'


def _run(*arguments: object) -> bytes:
    done = subprocess.run([str(a) for a in arguments], capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr).decode())
    return done.stdout


if __name__ == '__main__':
    main(*sys.argv[1:])
