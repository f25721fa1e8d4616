"""Your own images and masks that contradict each other or cannot be read."""

import shutil

import numpy as np
import pydicom
import pytest
from PIL import Image

from pneumojax.data.datasets import example as example_lib
from pneumojax.data.datasets import folder_dataset
from pneumojax.errors import UsageError
from tests.data.datasets.folder_images import drawing, table, write, write_seg


def find_and_load(*arguments):
    return [example_lib.load(example) for example in folder_dataset.find(*map(str, arguments))]


def refused(expected, *arguments):
    with pytest.raises(UsageError, match=expected) as error:
        find_and_load(*arguments)
    assert '\n' not in str(error.value)


def test_a_mask_of_another_size(root):
    write(root / 'masks' / 'b.png', drawing(1)[1][:, :50])
    refused(r'ImageId b: the image .*b\.png has 40 x 56 pixels .* its mask 40 x 50', root)


def test_pixels_that_are_not_square(films):
    root, true = films
    example = next(iter(true.values()))
    write_seg(root / 'masks', example)
    file = pydicom.dcmread(example.path)
    file.PixelSpacing = [0.3, 0.15]
    file.save_as(example.path)
    expected = rf'ImageId {example.image_id}: .*{example.image_id}\.dcm: its pixels are not square'
    refused(expected, root)
    with pytest.raises(UsageError, match=expected):  # in Kaggle's layout too
        example_lib.load(example)


def test_masks_that_cannot_be_read(root):
    _, mask = drawing(0)
    path = root / 'masks' / 'a.png'
    Image.fromarray(np.stack([0 * mask] * 3 + [mask * np.uint8(255)], -1)).save(path)
    refused(r'ImageId a: the mask .*a\.png: the mask is partly transparent', root)
    Image.fromarray(mask * np.uint8(255)).save(path, 'JPEG')
    refused(r'a\.png: a mask is a PNG file', root)
    Image.fromarray(mask).save(path)
    path.write_bytes(path.read_bytes()[:60])
    refused(r'a\.png: cut short', root)


def test_names_and_uids_that_are_there_twice(root, films, tmp_path):
    films, true = films
    example = next(iter(true.values()))
    write_seg(films / 'masks', example)
    shutil.copy(example.path, films / 'copy.dcm')
    refused(r'are the same image \(SOPInstanceUID\)', films)
    (films / 'copy.dcm').unlink()
    write(films / 'masks' / f'{example.image_id}.png', example_lib.load(example)[1])
    refused(f'ImageId {example.image_id} has two masks', films)
    write(root / 'more' / 'a.png', drawing(7)[0])
    refused(r'ImageId a is found twice: .*images/a\.png and .*more/a\.png', root)
    shutil.rmtree(root / 'more')
    write(root / 'masks' / 'more' / 'a.png', drawing(0)[1])
    refused('two masks are called a', root)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('ImageId,Pneumothorax\na,0\n', 'a: the table says Pneumothorax 0, but the mask is not'),
        ('ImageId,Pneumothorax\nc,1\n', 'c: the table says Pneumothorax 1, but the mask is em'),
        ('ImageId,Pneumothorax\na,yes\n', 'line 2: the column Pneumothorax holds none of 0'),
        ('ImageId,PatientId\na,SECRET\nb,\n', 'line 3: ImageId b has no PatientId'),
        ('ImageId,PatientId\na,SECRET\na,other\n', 'line 3: ImageId a has another row'),
        ('ImageId,split\na,dev\n', 'line 2: the column split holds none of'),
        ('ImageId,fold\na,5\n', 'line 2: the column fold holds no whole number from 0 to 4'),
        ('ImageId,fold,split\na,0,train\n', 'both a column split and a column fold'),
        ('SECRET,x\na,5\n', 'the column ImageId is missing from the first line'),
        ('ImageId,split,Split\na,train,train\n', 'the column split appears twice'),
        ('ImageId,split\na,train,SECRET\n', 'line 2: 3 cells under a header of 2'),
        ('ImageId,split\n,train\n', 'line 2: the row has no ImageId'),
        ('ImageId\n"a\nb\n', r'cannot be read as a CSV .*Error'),
        ('ImageId,split\na\n', 'line 2: the row has no split'),
        ('ImageId\n', 'holds no rows'),
        ('ImageId\nx\n', 'none of 4 images can be used'),
    ],
)  # fmt: skip
def test_tables_that_are_refused(root, text, expected):
    table(root, text)
    with pytest.raises(UsageError, match=expected) as error:
        folder_dataset.find(str(root))
    assert 'SECRET' not in str(error.value)
    assert '\n' not in str(error.value)


def test_folders_and_files_that_are_not_there(root, tmp_path):
    refused('data.root: there is no folder', tmp_path / 'nowhere')
    refused('data.masks: there is no folder', root, tmp_path / 'nowhere')
    refused('data.table: there is no file', root, '', tmp_path / 'nowhere.csv')
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'a.txt').touch()
    refused('no DICOM file or picture', tmp_path / 'other')
