"""A folder of radiographs without masks, for learning without labels.

Images are found as in `folder_dataset`, and masks that are there are left alone. What is known of
patients and sides of the split is used, but nothing about them is required: no figure of a
segmentation depends on it.
"""

from pneumojax.data.datasets import folder_dataset, folder_table, siim
from pneumojax.data.datasets.example import Example
from pneumojax.errors import UsageError
from pneumojax.system.progress import log


def find(
    root: str, masks: str = '', table: str = '', patients: str = '', *, fold: int = 0,
    num_folds: int = 5,
) -> tuple[Example, ...]:  # fmt: skip
    """Lists the radiographs below a folder, sorted by ImageId; none of them has a mask.

    Args:
      root: the folder; Kaggle's layout is one too.
      masks: folder of the PNG masks, which are no radiographs; '' for `masks` below the root.
      table: CSV as in `folder_table`; '' for `table.csv` below the root. If there is one, only
        images in it are used, and none of those that it keeps for testing.
      patients: CSV with the columns ImageId and PatientId, or ''. An image that is not in it counts
        as the patient that its DICOM header names, or else as one of its own.
      fold, num_folds: as in `folder_dataset.find`.

    Raises:
      UsageError: there is no image.
    """
    rows = folder_table.read(root, table, fold, num_folds)
    images = folder_dataset.list_files(root, masks).images
    names = sorted(images)
    if rows is not None:
        names = [name for name in names if name in rows and rows[name].side != 'test']
    if not names:
        raise UsageError(
            f'config.data.root: no radiograph to learn from below {root!r}; expected DICOM files '
            'or pictures, masks are not needed'
        )
    owners = siim.read_patients(patients, []) if patients else {}
    # An anonymised folder may have one PatientID for all, which says nothing.
    headed = {images[name].patient for name in names}
    examples = []
    for name in names:
        stated = rows[name].patient if rows is not None else ''
        header = images[name].patient if len(headed) > 1 else ''
        patient = stated or owners.get(name) or header or name
        side = '' if rows is None else rows[name].side
        examples.append(Example(name, images[name].path, (), patient, side=side))
    log.info('%d radiographs below %s, used without labels', len(examples), root)
    return tuple(examples)
