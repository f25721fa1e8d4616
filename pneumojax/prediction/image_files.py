"""The files that are written about each image: pictures, and DICOM objects for archives.

To add one, write a function such as `_write_overlay` and add it to `PER_IMAGE`.
"""

import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pydicom

from pneumojax import __version__
from pneumojax.data.files import inputs
from pneumojax.drawing import heatmap, overlay
from pneumojax.evaluation.wording import probability_sentence
from pneumojax.prediction.ensemble import Ensemble
from pneumojax.prediction.journal import ResultRow
from pneumojax.prediction.options import Options

if TYPE_CHECKING:
    from pneumojax.prediction.reference import Algorithm, Instance


class PredictedImage(NamedTuple):
    """One image and its prediction, at its original size."""

    radiograph: inputs.Radiograph
    probability: np.ndarray  # float32 [H, W]
    mask: np.ndarray  # uint8 [H, W], 0 and 1
    row: ResultRow
    ensemble: Ensemble


class ImageFile(NamedTuple):
    """A file that is written about each image, in a folder of its own."""

    suffix: str
    description: str  # for the documentation's reference
    is_wanted: Callable[[Options], bool]
    write: Callable[[pathlib.Path, PredictedImage, Options], None]
    has_checksum: bool = False  # it is a result, not a picture of it: compared byte by byte


class NotPossible(Exception):
    """The file is not made for this image; the message, if any, becomes a note in its row."""


def path_of(name: str, row: ResultRow) -> str:
    """Where the file of this name in `PER_IMAGE` is, below the folder of the prediction."""
    return f'{name}/{row["ImageId"]}{PER_IMAGE[name].suffix}'


def computed_by(ensemble: Ensemble) -> str:
    """The runtime and its precision."""
    return f'{ensemble.runtime["name"]}, {ensemble.runtime["precision"]}'


# --- pictures ----------------------------------------------------------------------------------


def _write_mask(path: pathlib.Path, image: PredictedImage, _: Options) -> None:
    overlay.write_png(path, image.mask * np.uint8(255))


def _write_overlay(path: pathlib.Path, image: PredictedImage, _: Options) -> None:
    overlay.write_png(path, overlay.overlay(image.radiograph.image, image.mask))


def _write_heatmap(path: pathlib.Path, image: PredictedImage, _: Options) -> None:
    overlay.write_png(path, heatmap.heatmap(image.radiograph.image, image.probability))


# --- DICOM objects, whose modules take a second to import ----------------------------------------


def _write_seg(path: pathlib.Path, image: PredictedImage, options: Options) -> None:
    from pneumojax.prediction import seg

    if options.seg_for == 'positive' and not image.mask.any():
        raise NotPossible
    assert options.seg != 'none'  # or it would not be wanted
    kind, result = options.seg, image.mask if options.seg == 'binary' else image.probability
    _write_object(
        path, image, 'SEG', lambda header, **of: seg.make(header, result, kind=kind, **of)
    )


def _write_sr(path: pathlib.Path, image: PredictedImage, options: Options) -> None:
    from pneumojax.prediction import laterality, reference, sr

    def make(header: pydicom.Dataset, **of: Any) -> pydicom.Dataset:
        row, side = image.row, laterality.side(image.mask, reference.orientation(header))
        finding = sr.Finding(
            image.mask.shape, row['probability'], row['area_px'], row['area_mm2'], side,
            probability_sentence(image.ensemble.stated_calibration),
        )  # fmt: skip
        return sr.make(header, finding, segmentation=_segmentation(image, options), **of)

    _write_object(path, image, 'SR', make)


def _write_secondary_capture(path: pathlib.Path, image: PredictedImage, _: Options) -> None:
    from pneumojax.prediction import secondary_capture

    if not image.mask.any():
        raise NotPossible  # there is no outline
    picture = image.radiograph.image
    _write_object(
        path, image, 'secondary capture',
        lambda header, **of: secondary_capture.make(header, picture, image.mask, **of),
    )  # fmt: skip


def _write_gsps(path: pathlib.Path, image: PredictedImage, _: Options) -> None:
    from pneumojax.prediction import gsps

    if not image.mask.any():
        raise NotPossible
    _write_object(path, image, 'GSPS', lambda header, **of: gsps.make(header, image.mask, **of))


def _write_object(
    path: pathlib.Path, image: PredictedImage, name: str, make: Callable[..., pydicom.Dataset]
) -> None:
    """Writes what `make(header, algorithm=..., key=...)` makes, or notes why it cannot be made."""
    from pneumojax.prediction import reference

    header = image.radiograph.header
    if header is None:
        raise NotPossible
    algorithm, key = _algorithm(image.ensemble), _key(image)
    try:
        dataset = make(header, algorithm=algorithm, key=key)
        reference.write(path, dataset)
    except reference.CannotBeMade as error:
        raise NotPossible(f'no {name}: {error}') from None
    except OSError:
        raise
    # The message may quote the header, which names a patient, so only the type is passed on.
    except Exception as error:
        raise NotPossible(
            f'no {name}: its header cannot be taken over ({type(error).__name__})'
        ) from None
    emptied = reference.emptied(header)
    note = f'empty in DICOM files, as the value breaks the rules: {", ".join(emptied)}'
    if emptied and note not in image.row['notes']:
        image.row['notes'].append(note)


def _segmentation(image: PredictedImage, options: Options) -> 'Instance | None':
    """The UIDs of the SEG about the image, if one was written."""
    from pneumojax.prediction import reference, seg

    header = image.radiograph.header
    if (
        header is None
        or options.seg == 'none'
        or path_of('seg', image.row) not in image.row['written']
    ):
        return None
    source = reference.reference(header, image.mask.shape)
    return seg.instance(source, options.seg, _algorithm(image.ensemble), _key(image))


def _key(image: PredictedImage) -> str:
    return inputs.printable(image.row['file'])


def _algorithm(ensemble: Ensemble) -> 'Algorithm':
    from pneumojax.prediction.reference import Algorithm

    rule = ensemble.rule
    return Algorithm(
        version=__version__,
        run=' '.join(f'{m["name"]}@{m["step"]}' for m in ensemble.identity),
        parameters={
            'top': f'{rule.top:g}',
            'area': str(rule.area),
            'bottom': f'{rule.bottom:g}',
            'runtime': computed_by(ensemble),
            'network': _digest(ensemble.identity),
            **({'trained_on': 'drawn phantoms'} if ensemble.learned_from_phantoms else {}),
        },
    )


def _digest(identity: Sequence[Mapping[str, Any]]) -> str:
    """Tells networks apart, wherever their run directories are."""
    stated = [{k: v for k, v in member.items() if k != 'run'} for member in identity]
    return hashlib.sha256(json.dumps(stated).encode()).hexdigest()[:16]


# By folder, in the order in which they are written: the SR refers to the SEG.
PER_IMAGE = {
    'masks': ImageFile(
        '.png', 'One PNG per image, 0 and 255, in the original size.',
        lambda options: True, _write_mask, has_checksum=True,
    ),
    'overlays': ImageFile(
        '.png', 'The outline on the radiograph (`--nooverlays` leaves them out).',
        lambda options: options.overlays, _write_overlay,
    ),
    'heatmaps': ImageFile(
        '.png', 'The probability on the radiograph, with `--heatmap`.',
        lambda options: options.heatmap, _write_heatmap,
    ),
    'seg': ImageFile(
        '.dcm', 'One DICOM SEG per DICOM file; `--seg` chooses masks, probabilities or none, and '
        '`--seg_for=positive` leaves out those without a marked area.',
        lambda options: options.writes('seg'), _write_seg, has_checksum=True,
    ),
    'sr': ImageFile(
        '.dcm', 'One DICOM Structured Report per DICOM file, with `sr` in `--outputs`.',
        lambda options: options.writes('sr'), _write_sr, has_checksum=True,
    ),
    'secondary_capture': ImageFile(
        '.dcm', 'One DICOM picture with the outline burnt in per DICOM file with a marked area, '
        'with `secondary_capture` in `--outputs`.',
        lambda options: options.writes('secondary_capture'), _write_secondary_capture,
        has_checksum=True,
    ),
    'gsps': ImageFile(
        '.dcm', 'One DICOM presentation state with the outline per DICOM file with a marked area, '
        'with `gsps` in `--outputs`.',
        lambda options: options.writes('gsps'), _write_gsps, has_checksum=True,
    ),
}  # fmt: skip
