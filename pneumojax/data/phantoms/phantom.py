"""A data set of synthetic chest radiographs in Kaggle's layout, as real DICOM files.

It has the variety of SIIM and other real data sets: mostly JPEG Baseline, some MONOCHROME1, some
12-bit files with a window, positives with one row or two in the CSV, and patients with several
images whose DICOM PatientIDs differ.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import ml_collections
import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    generate_uid,
)

from pneumojax.data import rle
from pneumojax.data.phantoms.drawing import Phantom, draw
from pneumojax.errors import UsageError
from pneumojax.system import atomic
from pneumojax.system.parallel import cores
from pneumojax.system.progress import bar

__all__ = ['Phantom', 'draw', 'write_dataset']

MARKER = 'phantoms.json'
VERSION = 2  # of the drawing; raise it when the same seed gives a different image
JPEG_QUALITY = 95
WINDOW_CENTER, WINDOW_WIDTH = 1048.5, 2041  # of 12-bit files: 8 values per grey level
RESCALE_INTERCEPT = -1000


class ImageSpec(NamedTuple):
    """What to draw for one image of the data set."""

    number: int
    patient: int
    positive: bool


def write_dataset(
    root: str | os.PathLike, *, num_images: int, size: int, seed: int, positive_share: float = 0.22
) -> Path:
    """Writes `dicom-images-train/`, `train-rle.csv`, `patients.csv` and `phantoms.json`.

    The folder appears when it is complete. Image i depends only on the seed, the size and the
    share, so a larger set begins with the images of a smaller one.

    Args:
      root: folder to write. If it was written with the same arguments, it is left as it is.
      num_images: 1 or more.
      size: side of the images in pixels, 32 or more.
      seed: 0 or more.
      positive_share: in [0, 1]; round(positive_share * num_images) images are positive.

    Returns:
      The root.

    Raises:
      UsageError: an argument is out of range, or the root holds something else.
    """
    root = Path(root).resolve()
    check(num_images, size, seed, positive_share)
    wanted = {
        'version': VERSION,
        'num_images': num_images,
        'size': size,
        'seed': seed,
        'positive_share': positive_share,
    }
    if is_there(root, wanted):
        return root
    specs = make_specs(num_images, seed, positive_share)
    root.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic.new_folder(root, lambda root: is_there(root, wanted)) as unfinished,
        ThreadPoolExecutor(cores()) as threads,
    ):
        drawn = threads.map(lambda spec: write_image(unfinished, spec, size, seed), specs)
        runs = list(bar(drawn, 'phantoms', len(specs), unit='image'))
        write_tables(unfinished, specs, seed, runs)
        (unfinished / MARKER).write_text(json.dumps(wanted, indent=2) + '\n')
    return root


def are_in(data: ml_collections.ConfigDict) -> bool:
    """Whether the images that `config.data` names are phantoms, drawn by this run or earlier."""
    return bool(data.phantoms.num_images) or (Path(data.root) / MARKER).is_file()


def check(num_images: int, size: int, seed: int, positive_share: float) -> None:
    """Raises UsageError if an argument of `write_dataset` is out of range."""
    if num_images < 1:
        raise UsageError(f'phantoms: the number of images is {num_images}; it must be 1 or more')
    if size < 32:
        raise UsageError(f'phantoms: the image size is {size}; it must be 32 or more')
    if seed < 0:
        raise UsageError(f'phantoms: the seed is {seed}; it must be 0 or more')
    if not 0 <= positive_share <= 1:
        raise UsageError(f'phantoms: the positive share is {positive_share}; it must be 0 to 1')


def is_there(root: Path, wanted: dict) -> bool:
    """Whether the root holds exactly these phantoms; False if it is missing or empty."""
    if root.exists() and not root.is_dir():
        raise UsageError(f'{root} is a file; name a new folder for the phantoms')
    if not root.is_dir() or not any(root.iterdir()):
        return False
    marker = root / MARKER
    if not marker.is_file():
        raise UsageError(
            f'{root} holds files but no {MARKER}, so phantoms are not written there; '
            'name a new or empty folder'
        )
    try:
        found = json.loads(marker.read_text())
    except ValueError:
        found = None
    if found == wanted:
        return True
    raise UsageError(
        f'{marker} states {found} instead of {wanted}; delete {root} or name another folder'
    )


def make_specs(num_images: int, seed: int, positive_share: float) -> list[ImageSpec]:
    """Assigns patients, with about two images each as in SIIM, and the exact share of positives."""
    # For any n, the first n images have round(share * n) positives.
    so_far = [round(positive_share * i) for i in range(num_images + 1)]
    # SIIM's 12,047 images are of 6,171 people.
    draws = np.random.default_rng([seed, *b'patients']).random(num_images)
    patient = np.cumsum(draws < 6171 / 12047)
    return [ImageSpec(i, int(patient[i]), so_far[i + 1] > so_far[i]) for i in range(num_images)]


def image_id(seed: int, number: int) -> str:
    """The SOPInstanceUID, which is also the stem of the file."""
    return generate_uid(entropy_srcs=['pneumojax phantom', str(seed), 'image', str(number)])


def write_image(root: Path, spec: ImageSpec, size: int, seed: int) -> list[str]:
    """Draws one image, writes its file, and returns the run-length text of each CSV row."""
    phantom = draw(np.random.default_rng([seed, spec.number]), size, spec.positive)
    header = np.random.default_rng([seed, spec.number, 1])
    file = to_dicom(phantom.image, spec, seed, header)
    folder = root / 'dicom-images-train' / file.StudyInstanceUID / file.SeriesInstanceUID
    folder.mkdir(parents=True)
    file.save_as(folder / f'{file.SOPInstanceUID}.dcm', enforce_file_format=True)

    middle = int(np.median(np.nonzero(phantom.mask)[0])) + 1 if spec.positive else size
    upper, lower = phantom.mask.copy(), phantom.mask.copy()
    upper[middle:], lower[:middle] = 0, 0
    if header.random() < 0.2 and upper.any() and lower.any():
        return [rle.encode(upper), rle.encode(lower)]
    return [rle.encode(phantom.mask)]


def to_dicom(
    image: np.ndarray, spec: ImageSpec, seed: int, header: np.random.Generator
) -> pydicom.Dataset:
    """Makes a file that shows `image` (uint8 [S, S], MONOCHROME2), in one of three encodings."""

    def uid(kind: str) -> str:
        return generate_uid(entropy_srcs=['pneumojax phantom', str(seed), kind, str(spec.number)])

    digital, view = header.random() < 0.5, 'PA' if header.random() < 0.6 else 'AP'
    spacing = float(np.round(header.choice([0.139, 0.143, 0.168, 0.171]) * 1024 / len(image), 4))
    ds = pydicom.Dataset()
    ds.SpecificCharacterSet = 'ISO_IR 100'
    ds.SOPClassUID = (
        DigitalXRayImageStorageForPresentation if digital else ComputedRadiographyImageStorage
    )
    ds.SOPInstanceUID = image_id(seed, spec.number)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid('study'), uid('series')
    ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.ReferringPhysicianName = ''
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = '', '1', '1'
    ds.Modality, ds.Manufacturer, ds.BodyPartExamined = 'DX' if digital else 'CR', '', 'CHEST'
    ds.ViewPosition, ds.PatientOrientation = view, ['L', 'F']
    ds.ConversionType = 'SYN'
    ds.PatientName = f'Phantom^{spec.number + 1:04d}'
    ds.PatientID = uid('patient').rsplit('.', 1)[1]  # SIIM's differ between images of one person
    ds.PatientBirthDate, ds.PatientSex = '', 'FM'[header.integers(2)]
    ds.PatientAge = f'{header.integers(18, 90):03d}Y'
    ds.ImagerPixelSpacing = ds.PixelSpacing = [spacing, spacing]
    ds.SamplesPerPixel, ds.PixelRepresentation = 1, 0
    ds.Rows, ds.Columns = image.shape
    ds.PresentationLUTShape, ds.PhotometricInterpretation = 'IDENTITY', 'MONOCHROME2'

    kind = header.random()
    if kind < 0.1:
        set_12_bit(ds, image)
    else:
        if kind < 0.2:
            ds.PhotometricInterpretation, ds.PresentationLUTShape = 'MONOCHROME1', 'INVERSE'
            image = 255 - image
        set_jpeg(ds, image)
    return ds


def set_jpeg(ds: pydicom.Dataset, image: np.ndarray) -> None:
    """Stores the image as JPEG Baseline, like most of SIIM's files."""
    ok, code = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert ok
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.LossyImageCompression, ds.LossyImageCompressionMethod = '01', 'ISO_10918_1'
    ds.LossyImageCompressionRatio = round(image.size / code.size, 2)
    ds.PixelData = encapsulate([code.tobytes()])
    ds['PixelData'].VR, ds['PixelData'].is_undefined_length = 'OB', True
    set_syntax(ds, JPEGBaseline8Bit)


def set_12_bit(ds: pydicom.Dataset, image: np.ndarray) -> None:
    """Stores values that rescale and window map back to the image (PS3.3 C.11.2.1.2.1)."""
    low = WINDOW_CENTER - 0.5 - (WINDOW_WIDTH - 1) / 2
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = RESCALE_INTERCEPT, 1, 'US'
    ds.WindowCenter, ds.WindowWidth = WINDOW_CENTER, WINDOW_WIDTH
    stored = np.rint(low + image * ((WINDOW_WIDTH - 1) / 255)) - RESCALE_INTERCEPT
    ds.PixelData = stored.astype('<u2').tobytes()
    ds['PixelData'].VR = 'OW'
    set_syntax(ds, ExplicitVRLittleEndian)


def set_syntax(ds: pydicom.Dataset, syntax: UID) -> None:
    """Adds the file header, which states how the pixels are encoded."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = syntax


def write_tables(root: Path, specs: list[ImageSpec], seed: int, runs: list[list[str]]) -> None:
    """Writes Kaggle's CSV, with its spaces, and the CSV of patients."""
    masks, patients = ['ImageId, EncodedPixels'], ['ImageId,PatientId']
    for spec, texts in zip(specs, runs, strict=True):
        name = image_id(seed, spec.number)
        masks += [f'{name}, {text}' for text in texts]
        patients.append(f'{name},phantom-{spec.patient:05d}')
    (root / 'train-rle.csv').write_text('\n'.join(masks) + '\n')
    (root / 'patients.csv').write_text('\n'.join(patients) + '\n')
