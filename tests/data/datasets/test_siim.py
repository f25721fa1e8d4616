"""Finding a data set in Kaggle's layout: the ways the files come, the ways they go wrong."""

import os
import time

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, SecondaryCaptureImageStorage

from pneumojax.data import rle
from pneumojax.data.datasets import example as example_lib
from pneumojax.data.datasets import siim
from pneumojax.errors import UsageError


def touch(path):
    """An empty file stands for an image: `find` opens none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def write_dicom(path, pixels, jpeg=True):
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if jpeg else ExplicitVRLittleEndian
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = pydicom.uid.generate_uid()
    dataset.PatientName = 'Secret^Name'
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, 'MONOCHROME2'
    bits = 8 * pixels.itemsize
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = 0
    data = pixels.tobytes()
    if jpeg:
        data = encapsulate([cv2.imencode('.jpg', pixels)[1].tobytes()])
    dataset.PixelData = data
    dataset['PixelData'].VR = 'OB' if bits == 8 else 'OW'
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def make(root, rows, names, csv='train-rle.csv', header='ImageId, EncodedPixels'):
    for name in names:
        touch(root / 'dicom-images-train' / f'study.{name}' / f'series.{name}' / f'{name}.dcm')
    (root / csv).parent.mkdir(parents=True, exist_ok=True)
    (root / csv).write_text('\n'.join([header, *rows]) + '\n', encoding='utf-8')
    return root


def test_kaggles_first_file_with_its_spaces_and_several_rows(tmp_path):
    make(
        tmp_path,
        ['1.2.9, -1', '1.2.4, 0 2', '1.2.4, 5 1', '1.2.10, 3 3'],
        ['1.2.9', '1.2.4', '1.2.10'],
    )
    dataset = siim.find(tmp_path)
    assert [example.image_id for example in dataset.examples] == ['1.2.10', '1.2.4', '1.2.9']
    assert [example.rles for example in dataset.examples] == [('3 3',), ('0 2', '5 1'), ()]
    assert [example.positive for example in dataset.examples] == [True, True, False]
    assert [example.patient_id for example in dataset.examples] == ['1.2.10', '1.2.4', '1.2.9']
    assert all(os.path.basename(e.path) == f'{e.image_id}.dcm' for e in dataset.examples)
    assert all(os.path.isfile(example.path) for example in dataset.examples)
    assert dataset.annotations == str(tmp_path / 'train-rle.csv')
    assert dataset.images_without_row == dataset.rows_without_image == ()


@pytest.mark.parametrize(
    'text',
    [
        'ImageId,EncodedPixels\nID_a,0 1\nID_b,-1\n',
        'ImageId, EncodedPixels\nID_a, 0 1\nID_b, -1',
        '\ufeffImageId,EncodedPixels\r\nID_a,0 1\r\nID_b,-1\r\n',
        '"ImageId","EncodedPixels"\n"ID_a","0 1"\n"ID_b","-1"\n',
        'ImageId, "EncodedPixels"\n"ID_a", " 0 1"\n"ID_b", " -1"\n',
        'EncodedPixels,ImageId\n0 1,ID_a\n-1,ID_b\n',
        '\nImageId,EncodedPixels\nID_a,0 1\nID_b,-1\n'.lstrip(),
        'ImageId,EncodedPixels,Note\n\nID_a ,0 1 ,x\n,,\n ID_b, -1 ,\n\n',
    ],
)
def test_forms_of_the_csv(tmp_path, text):
    touch(tmp_path / 'ID_a.dcm')
    touch(tmp_path / 'ID_b.DCM')
    (tmp_path / 'stage_2_train.csv').write_bytes(text.encode())
    examples = siim.find(str(tmp_path)).examples
    assert [(e.image_id, e.rles) for e in examples] == [('ID_a', ('0 1',)), ('ID_b', ())]


def test_files_that_are_no_images_are_passed_over(tmp_path):
    make(tmp_path, ['a,-1'], ['a'])
    touch(tmp_path / '__MACOSX' / '._a.dcm')
    touch(tmp_path / 'a.png')
    touch(tmp_path / 'a.dcm.txt')
    assert len(siim.find(tmp_path).examples) == 1


def test_links_are_followed_but_not_in_circles(tmp_path):
    make(tmp_path / 'real', ['a,-1'], ['a'])
    root = tmp_path / 'linked'
    root.mkdir()
    (root / 'images').symlink_to(tmp_path / 'real', target_is_directory=True)
    (tmp_path / 'real' / 'circle').symlink_to(tmp_path / 'real', target_is_directory=True)
    dataset = siim.find(root)
    assert [example.image_id for example in dataset.examples] == ['a']


@pytest.mark.parametrize(
    ('csvs', 'chosen'),
    [
        (['train-rle.csv', 'stage_2_train.csv'], 'stage_2_train.csv'),
        (['sub/train-rle.csv'], 'sub/train-rle.csv'),
        (['sub/stage_2_train.csv', 'train-rle.csv'], 'train-rle.csv'),
        (['b/train-rle.csv', 'a/train-rle.csv', 'b/stage_2_train.csv'], 'b/stage_2_train.csv'),
    ],
)
def test_which_csv_counts(tmp_path, csvs, chosen):
    for csv in csvs:
        make(tmp_path, ['a,-1' if csv == chosen else 'b,-1'], ['a', 'b'], csv)
    dataset = siim.find(tmp_path)
    assert dataset.annotations == str(tmp_path / chosen)
    assert [example.image_id for example in dataset.examples] == ['a']


def test_what_has_no_counterpart_is_left_out_and_counted(tmp_path, messages):
    make(tmp_path, ['a,-1', 'x,0 1', 'x,2 1', 'w,-1'], ['a', 'c', 'b'])
    dataset = siim.find(tmp_path)
    assert [example.image_id for example in dataset.examples] == ['a']
    assert dataset.images_without_row == ('b', 'c')
    assert dataset.rows_without_image == ('w', 'x')
    assert len(messages) == 2
    assert messages[0].startswith('2 images have no row')
    assert messages[0].endswith('the first is b')
    assert messages[1].startswith('2 ImageIds')
    assert messages[1].endswith('the first is w')


def test_a_mask_counts_beside_an_empty_row(tmp_path, messages):
    make(tmp_path, ['a,-1', 'a,0 1', 'b,2 2', 'b,-1', 'c,-1', 'c,-1'], ['a', 'b', 'c'])
    examples = siim.find(tmp_path).examples
    assert [example.rles for example in examples] == [('0 1',), ('2 2',), ()]
    assert len(messages) == 1
    assert messages[0].startswith('2 ImageIds')
    assert messages[0].endswith('the first is a')


def test_patients(tmp_path, messages):
    make(tmp_path, ['a,-1', 'b,-1'], ['a', 'b'])
    patients = tmp_path / 'patients.csv'
    patients.write_text('PatientId, ImageId\n007, b\n007,a\n008,elsewhere\n007,a\n')
    examples = siim.find(tmp_path, patients).examples
    assert [example.patient_id for example in examples] == ['007', '007']
    assert not messages


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('ImageId,PatientId\nb,SECRET\n', '2 of 3 images have no row, the first is ImageId a'),
        ('ImageId,PatientId\na,SECRET\na,SECRET2\n', 'line 3: ImageId a has another patient'),
        ('ImageId,PatientId\na,\n', 'line 2: ImageId a has no PatientId'),
        ('ImageId,Patient\na,SECRET\n', 'PatientId is missing'),
        ('', 'holds no rows'),
        (None, 'data.patients: there is no file'),
    ],
)
def test_bad_patients(tmp_path, text, expected):
    make(tmp_path, ['a,-1', 'b,-1', 'c,-1'], ['a', 'b', 'c'])
    if text is not None:
        (tmp_path / 'patients.csv').write_text(text)
    assert_one_line(expected, 'patients.csv', tmp_path, tmp_path / 'patients.csv')


def assert_one_line(expected, name, *arguments):
    with pytest.raises(UsageError, match=expected) as error:
        siim.find(*arguments)
    message = str(error.value)
    assert name in message
    assert '\n' not in message
    assert 'SECRET' not in message


DEMO = r'python -m pneumojax.main --config=configs/demo.py'


@pytest.mark.parametrize('root', ['', None, 'nowhere', 'file'])
def test_no_data_set_offers_the_demo(tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'file').touch()
    assert_one_line(DEMO, 'data.root', root)
    assert_one_line('train-rle.csv or stage_2_train.csv', root or 'data.root', root)


def test_no_images_and_no_csv(tmp_path):
    assert_one_line(f'no .dcm file below .*{DEMO}', str(tmp_path), tmp_path)
    touch(tmp_path / 'a.dcm')
    assert_one_line(f'1 DICOM files below .* neither .*{DEMO}', 'stage_2_train.csv', tmp_path)
    (tmp_path / 'deep' / 'down').mkdir(parents=True)
    (tmp_path / 'deep' / 'down' / 'train-rle.csv').write_text('ImageId,EncodedPixels\na,-1\n')
    assert_one_line('neither', 'train-rle.csv', tmp_path)


@pytest.mark.parametrize(
    ('content', 'expected'),
    [
        ('', 'holds no rows'),
        ('\n', 'holds no rows'),
        ('ImageId,EncodedPixels\n', 'holds no rows'),
        ('ImageId,EncodedPixels\n\n\n', 'holds no rows'),
        ('Image,Pixels\na,-1\n', 'ImageId and EncodedPixels is missing from the first line'),
        ('ImageId;EncodedPixels\na;-1\n', 'ImageId and EncodedPixels is missing'),
        ('ImageId,Rle\na,-1\n', 'column EncodedPixels is missing'),
        ('a,-1\n', 'missing'),
        ('ImageId,EncodedPixels\na\n', 'line 2: the row has no EncodedPixels'),
        ('ImageId,EncodedPixels\n,-1\n', 'line 2: the row has no ImageId'),
        ('ImageId,EncodedPixels\na,\n', 'line 2: ImageId a: .*blank'),
        ('ImageId,EncodedPixels\nb,-1\na,1 2 3\n', 'line 3: ImageId a: .*pairs'),
        ('ImageId,EncodedPixels\na,1 x\n', "line 2: ImageId a: .*'x'"),
        ('ImageId,EncodedPixels\na,1 0\n', 'line 2: ImageId a: .*length 0'),
        ('ImageId,EncodedPixels\nx,-1\n', r'none of its 1 ImageIds \(x, ...\)'),
        (b'ImageId,EncodedPixels\n\xff\xfe,-1\n', 'UnicodeDecodeError'),
        ('ImageId,EncodedPixels\na,' + '1 ' * 100_000, 'Error'),
    ],
)
def test_bad_csv(tmp_path, content, expected):
    touch(tmp_path / 'a.dcm')
    raw = content if isinstance(content, bytes) else content.encode()
    (tmp_path / 'train-rle.csv').write_bytes(raw)
    assert_one_line(expected, 'train-rle.csv', tmp_path)


def test_the_same_image_in_two_places(tmp_path):
    make(tmp_path, ['a,-1'], ['a'])
    copy = touch(tmp_path / 'copy' / 'a.dcm')
    assert_one_line('ImageId a is found twice', str(copy), tmp_path)
    assert_one_line('twice', str(tmp_path / 'dicom-images-train'), tmp_path)


def test_load(tmp_path):
    pixels = np.arange(12 * 20, dtype=np.uint8).reshape(12, 20)
    path = write_dicom(tmp_path / 'a.dcm', pixels, jpeg=False)
    first, second = np.zeros((2, 12, 20), np.uint8)
    first[2:5, 3:7] = second[4:9, 5:9] = 1
    example = example_lib.Example('a', str(path), (rle.encode(first), rle.encode(second)), 'a')
    image, mask = example_lib.load(example)
    np.testing.assert_array_equal(image, pixels)
    np.testing.assert_array_equal(mask, first | second)
    assert image.dtype == mask.dtype == np.uint8
    image, mask = example_lib.load(example_lib.Example('a', str(path), (), 'a'))
    assert mask.shape == image.shape
    assert not mask.any()


def test_load_brings_sixteen_bits_to_eight(tmp_path):
    pixels = np.array([[0, 257, 65535], [514, 1000, 40000]], np.uint16)
    path = write_dicom(tmp_path / 'a.dcm', pixels, jpeg=False)
    image, _ = example_lib.load(example_lib.Example('a', str(path), (), 'a'))
    np.testing.assert_array_equal(image, np.round(pixels / 257))


def test_load_says_which_image_is_bad(tmp_path):
    path = write_dicom(tmp_path / 'a.dcm', np.zeros((16, 24), np.uint8))
    too_large = example_lib.Example('a', str(path), ('0 385',), 'a')
    with pytest.raises(UsageError, match=r'ImageId a: .*384 pixels.*16 x 24') as error:
        example_lib.load(too_large)
    assert str(path) in str(error.value)
    path.write_bytes(b'no image at all')
    with pytest.raises(UsageError, match=r'ImageId a: .*not a DICOM file') as error:
        example_lib.load(too_large)
    assert str(path) in str(error.value)
    path.unlink()
    with pytest.raises(UsageError, match=r'ImageId a: .*no such file'):
        example_lib.load(too_large)


def test_an_end_to_end_round_with_jpeg(tmp_path):
    """A smooth picture survives JPEG within a grey level or two, and lies the right way round."""
    pixels = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    write_dicom(tmp_path / 'images' / 'a.dcm', pixels)
    (tmp_path / 'train-rle.csv').write_text('ImageId, EncodedPixels\na, 48 48\n')
    (example,) = siim.find(tmp_path).examples
    image, mask = example_lib.load(example)
    assert np.abs(image.astype(int) - pixels).max() <= 3
    np.testing.assert_array_equal(np.flatnonzero(mask.all(axis=0)), [1])  # the second column
    assert mask.sum() == 48


@pytest.mark.slow
def test_a_data_set_of_full_size_is_listed_in_seconds(tmp_path):
    names = [f'1.2.276.0.7230010.3.1.4.8323329.{i}' for i in range(12_047)]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / f'{name}.dcm').touch()
    mask = ' '.join(['1000 24'] * 300)
    rows = [f'{name}, {mask if i % 4 == 0 else -1}' for i, name in enumerate(names)]
    (tmp_path / 'train-rle.csv').write_text('\n'.join(['ImageId, EncodedPixels', *rows]))
    start = time.process_time()
    assert len(siim.find(tmp_path).examples) == 12_047
    assert time.process_time() - start < 10
