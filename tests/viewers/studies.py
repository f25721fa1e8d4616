"""Studies to be opened in viewers: drawn radiographs, and every DICOM object about each.

    python -m tests.viewers.studies FOLDER

Each study is a folder: image.dcm, the objects named as in `--outputs`, and mask.raw, the pixels
that a reader has to find, a byte each. In one study nothing is marked; in one, the radiograph
states no spacing.
"""

import pathlib
import sys

import numpy as np
import pydicom

from pneumojax import __version__
from pneumojax.data.datasets import example, siim
from pneumojax.data.files import headers, inputs
from pneumojax.data.phantoms import phantom
from pneumojax.prediction import gsps, laterality, reference, secondary_capture, seg, sr

ALGORITHM = reference.Algorithm(
    __version__, 'drawn@0', {'top': '0.5', 'trained_on': 'drawn phantoms'}
)
SPACINGS = 'PixelSpacing', 'ImagerPixelSpacing'


def write(folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes the studies and returns their folders."""
    found = siim.find(
        phantom.write_dataset(folder / 'phantoms', num_images=5, size=512, seed=3, positive_share=1)
    ).examples
    studies = []
    for i, one in enumerate(found):
        mask = example.load(one)[1]
        name = f'{i}'
        dataset = pydicom.dcmread(one.path)
        if i == 1:
            mask, name = np.zeros_like(mask), f'{i}-nothing-marked'
        if i == 2:
            name = f'{i}-no-spacing'
            for keyword in SPACINGS:
                if keyword in dataset:
                    del dataset[keyword]
        study = folder / name
        study.mkdir()
        dataset.StudyDescription = name
        dataset.save_as(study / 'image.dcm')
        (study / 'mask.raw').write_bytes(mask.tobytes())
        for kind, made in _objects(study / 'image.dcm', mask).items():
            reference.write(study / f'{kind}.dcm', made)
        studies.append(study)
    return studies


def _objects(path: pathlib.Path, mask: np.ndarray) -> dict[str, pydicom.Dataset]:
    radiograph = inputs.read(path)
    header, about = radiograph.header, {'algorithm': ALGORITHM, 'key': 'image.dcm'}
    area, spacing = int(mask.sum()), headers.spacing(header)
    source = reference.reference(header, mask.shape)
    finding = sr.Finding(
        mask.shape, 0.9 if area else 0.1, area, spacing and area * spacing[0] * spacing[1],
        laterality.side(mask, reference.orientation(header)), 'Calibrated.',
    )  # fmt: skip
    segmentation = seg.instance(source, 'binary', ALGORITHM, 'image.dcm')
    made = {
        'seg': seg.make(header, mask, kind='binary', **about),
        'sr': sr.make(header, finding, segmentation=segmentation, **about),
    }
    if area:
        picture = radiograph.image
        made['secondary_capture'] = secondary_capture.make(header, picture, mask, **about)
        made['gsps'] = gsps.make(header, mask, **about)
    return made


if __name__ == '__main__':
    for written in write(pathlib.Path(sys.argv[1])):
        print(written)
