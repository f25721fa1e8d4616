"""Your own images and masks: which are used, and which are left out with a warning."""

import shutil

import numpy as np
import pydicom
import pytest
from PIL import Image

from pneumojax.data.datasets import example as example_lib
from pneumojax.data.datasets import folder_dataset
from pneumojax.errors import UsageError
from tests.data.datasets.folder_images import SHAPE, drawing, ids, table, write, write_seg

# --- PNG ---------------------------------------------------------------------------------------


def test_images_and_masks_of_the_same_name(root, messages):
    examples = folder_dataset.find(str(root))
    assert ids(examples) == ['a', 'b', 'c']
    assert [e.positive for e in examples] == [True, True, False]
    assert [e.patient_id for e in examples] == ['a', 'b', 'c']
    for seed, example in enumerate(examples):
        image, mask = example_lib.load(example)
        drawn = drawing(seed, example.positive)
        np.testing.assert_array_equal(image, drawn[0])
        np.testing.assert_array_equal(mask, drawn[1])
        assert image.shape == SHAPE
    assert any(m.startswith('1 images have no mask and are left out') for m in messages)
    assert any(m.endswith('the first is d') for m in messages)


def test_an_image_of_which_nothing_is_known_is_never_a_negative(root):
    (root / 'masks' / 'b.png').unlink()  # lost
    assert ids(folder_dataset.find(str(root))) == ['a', 'c']
    table(root, 'ImageId\na\nb\nc\nd\n')  # a row alone says nothing
    assert ids(folder_dataset.find(str(root))) == ['a', 'c']
    table(root, 'ImageId,Pneumothorax\na,1\nb,1\nc,\nd,0\n')
    examples = folder_dataset.find(str(root))
    assert [(e.image_id, e.positive) for e in examples] == [('a', True), ('c', False), ('d', False)]
    assert not example_lib.load(examples[2])[1].any()


@pytest.mark.parametrize('kind', ['1', 'L', 'P', 'RGB', 'RGBA', 'I;16', 'white'])
def test_every_kind_of_png_mask(root, kind):
    _, mask = drawing(0)
    pictures = {
        '1': Image.fromarray(mask * np.uint8(255)).convert('1'),
        'L': Image.fromarray(mask),  # 0 and 1
        'RGB': Image.fromarray(np.stack([mask * np.uint8(200), 0 * mask, 0 * mask], -1)),
        'RGBA': Image.fromarray(np.stack([mask, mask, mask, 0 * mask + np.uint8(255)], -1)),
        'I;16': Image.fromarray(mask.astype(np.uint16)),
        'white': Image.fromarray(0 * mask + np.uint8(9)),
    }
    palette = Image.fromarray(mask, 'L').convert('P')
    palette.putdata(mask.ravel().tolist())
    palette.putpalette([0, 0, 0, 255, 0, 0])
    (pictures | {'P': palette})[kind].save(root / 'masks' / 'a.png')
    read = example_lib.load(folder_dataset.find(str(root))[0])[1]
    np.testing.assert_array_equal(read, np.ones_like(mask) if kind == 'white' else mask)


def test_images_may_be_jpeg_or_have_sixteen_bits(root):
    image, _ = drawing(0)
    write(root / 'images' / 'a.png', image.astype(np.uint16) * 256)
    (root / 'images' / 'b.png').unlink()
    write(root / 'deeper' / 'b.JPG', drawing(1)[0])
    first, second = folder_dataset.find(str(root))[:2]
    spread = (image - float(image.min())) * 255 / float(np.ptp(image))
    np.testing.assert_allclose(example_lib.load(first)[0], spread, atol=0.51)
    assert np.abs(example_lib.load(second)[0].astype(int) - drawing(1)[0]).mean() < 3


def test_masks_may_lie_elsewhere(root, tmp_path):
    shutil.move(root / 'masks', tmp_path / 'drawn')
    with pytest.raises(UsageError, match=r'4 images below .*no mask of any.*configs/demo\.py'):
        folder_dataset.find(str(root))
    assert ids(folder_dataset.find(str(root), str(tmp_path / 'drawn'))) == ['a', 'b', 'c']


def test_what_has_no_counterpart_and_what_looks_odd_is_said(root, messages):
    write(root / 'masks' / 'x.png', drawing(0)[1])
    write(root / 'masks' / 'a.png', 255 - drawing(0)[1] * np.uint8(255))
    (root / 'masks' / 'notes.txt').write_text('drawn by two readers')
    (root / 'notes.txt').write_text('films of last year')
    table(root, 'ImageId\na\nb.png\nelsewhere\n')
    assert ids(folder_dataset.find(str(root))) == ['a', 'b']
    said = '\n'.join(messages)
    assert '1 masks have no image of the same name and are left out; the first is ' in said
    assert '1 masks cover more than half of their image' in said
    assert '1 files in the folder of masks are not masks' in said
    assert '2 images have no row in the table and are left out; the first is c' in said
    assert '1 ImageIds of the table have no image and are left out; the first is elsewhere' in said


# --- DICOM -------------------------------------------------------------------------------------


@pytest.mark.parametrize('place', ['masks', 'anywhere'])
def test_segmentations_find_their_images_by_uid(films, place):
    root, true = films
    for i, example in enumerate(true.values()):
        write_seg(root / place, example, 'fractional' if i % 2 else 'binary')
    examples = folder_dataset.find(str(root))
    assert ids(examples) == sorted(true)
    for example in examples:
        assert example.positive == true[example.image_id].positive
        for ours, theirs in zip(
            example_lib.load(example), example_lib.load(true[example.image_id]), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_patients_are_those_of_the_dicom_files_unless_somebody_says_otherwise(films):
    root, true = films
    for example in true.values():
        write_seg(root / 'masks', example)
    headed = {e: pydicom.dcmread(true[e].path).PatientID for e in true}
    assert {e.image_id: e.patient_id for e in folder_dataset.find(str(root))} == headed
    named = folder_dataset.find(str(root), patients=str(root / 'patients.csv'))
    stated = dict(line.split(',') for line in (root / 'patients.csv').read_text().split()[1:])
    assert {e.image_id: e.patient_id for e in named} == stated
    table(root, 'image id,patient_id\n' + ''.join(f'{e},p{i // 2}\n' for i, e in enumerate(true)))
    assert [e.patient_id for e in folder_dataset.find(str(root))] == [
        'p0',
        'p0',
        'p1',
        'p1',
        'p2',
        'p2',
    ]
    with pytest.raises(UsageError, match='keep one of them'):
        folder_dataset.find(str(root), patients=str(root / 'patients.csv'))


def test_one_patient_id_for_all_is_refused(films):
    root, true = films
    for example in true.values():
        write_seg(root / 'masks', example)
        file = pydicom.dcmread(example.path)
        file.PatientID = 'SECRET'
        file.save_as(example.path)
    with pytest.raises(UsageError, match='all 6 DICOM files have the same PatientID') as error:
        folder_dataset.find(str(root))
    assert 'SECRET' not in str(error.value)


def test_dicom_images_with_png_masks(films):
    root, true = films
    for name, example in true.items():
        write(root / 'masks' / f'{name}.png', example_lib.load(example)[1] * np.uint8(255))
    for example in folder_dataset.find(str(root)):
        np.testing.assert_array_equal(
            example_lib.load(example)[1], example_lib.load(true[example.image_id])[1]
        )
