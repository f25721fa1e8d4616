"""Files of every kind: what is read, skipped or refused, and how outputs are named."""

import os
import pathlib
import subprocess
import unicodedata

import cv2
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import uid

from pneumojax.data.files import dicom, inputs
from pneumojax.data.phantoms import phantom
from pneumojax.errors import UsageError
from tests.data.files import dicom_writing

PICTURE = phantom.draw(np.random.default_rng(1), 96, True).image[:, :70]


def make(path, pixels=PICTURE, syntax=uid.ExplicitVRLittleEndian, **tags):
    """A valid Computed Radiography file; `tags` replace or, when None, remove what is there."""
    radiograph = {
        'SOPClassUID': uid.ComputedRadiographyImageStorage, 'StudyInstanceUID': '1.2.3.4',
        'SeriesInstanceUID': '1.2.3.5', 'Modality': 'CR',
    }  # fmt: skip
    return dicom_writing.write(path, pixels, syntax, **{**radiograph, **tags})


# Names.


@given(st.lists(st.text(min_size=1, max_size=300).filter(lambda t: '\0' not in t), unique=True))
def test_names_are_safe_unique_and_stay(files):
    names = inputs.image_ids(files)
    assert list(names) == files
    assert len({name.casefold() for name in names.values()}) == len(files)
    for name in names.values():
        assert pathlib.PurePath(name).name == name
        assert not name.startswith(('.', '-'))
        assert len(f'.{name}.dcm.12345678'.encode()) < 255
    later = inputs.image_ids(['new/a.dcm', *files], names)
    assert {file: later[file] for file in files} == names
    assert len({name.casefold() for name in later.values()}) == len(later)


def test_names_are_the_stems():
    files = [
        'a/1.2.840.113.dcm',
        'b/1.2.840.113',
        'c/x.PNG',
        'C/X.dcm',
        '../../etc/passwd',
        '...dcm',
    ]
    names = ['1.2.840.113', '1.2.840.113-2', 'x', 'X-2', 'passwd', 'dcm']
    assert list(inputs.image_ids(files).values()) == names


def test_a_name_says_why_it_is_another():
    assert inputs.name_note('a/b.dcm', 'b') is None
    assert 'forbid' in inputs.name_note('a/b c.dcm', 'b_c')
    assert 'another input' in inputs.name_note('a/b.dcm', 'b-2')


def test_names_take_a_time_that_grows_with_their_number(monkeypatch):
    folded, calls = inputs._folded, []
    monkeypatch.setattr(inputs, '_folded', lambda name: calls.append(name) or folded(name))
    files = [f'study{i}/{"Image.dcm" if i % 3 else "image.dcm"}' for i in range(2000)]
    names = inputs.image_ids(files)
    assert list(names.values())[:4] == ['image', 'Image-2', 'Image-3', 'image-4']
    assert names[files[-1]].lower() == 'image-2000'
    assert len(calls) < 10 * len(files)
    # Names given before leave gaps, which are still filled from the lowest on.
    later = inputs.image_ids([*files[:3], 'x/image.dcm', 'y/image.dcm'], {files[1]: 'Image-3'})
    assert list(later.values()) == ['image', 'Image-3', 'Image-2', 'image-4', 'image-5']


@pytest.mark.parametrize('form', ['NFC', 'NFD'])
def test_a_name_does_not_depend_on_how_accents_are_written(form):
    file = unicodedata.normalize(form, 'Bücher/Säge é.png')
    assert inputs.stem(file) == 'S\u00e4ge \u00e9'
    assert inputs.image_ids([file]) == {file: 'S\u00e4ge_\u00e9'}


def test_a_name_in_bytes_can_be_printed():
    assert inputs.stem(os.fsdecode(b'a/\xff\xc3\xa9.dcm')) == '\\xff\u00e9'
    assert (
        inputs.printable('\udcc3\udca9') == '\u00e9'
    )  # as Python passes on UTF-8 in ASCII locales
    assert inputs.printable('\u00e9') == '\u00e9'


# Finding.


def test_files_are_found_in_order_without_the_outputs_folder(tmp_path):
    for name in ('b/2', 'b/1.dcm', 'a/z', 'out/masks/1.png', 'top'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    os.symlink(tmp_path, tmp_path / 'a' / 'loop')
    found = inputs.find(tmp_path, leave_out=tmp_path / 'out')
    assert found == ['top', 'a/z', 'b/1.dcm', 'b/2']
    assert inputs.find(tmp_path / 'b' / '2') == ['2']


def test_nothing_to_find(tmp_path):
    with pytest.raises(UsageError, match='no file or folder'):
        inputs.find(tmp_path / 'nowhere')
    with pytest.raises(UsageError, match='holds no files'):
        inputs.find(tmp_path)


def test_a_folder_that_cannot_be_listed_costs_that_folder(tmp_path, monkeypatch, caplog):
    make(tmp_path / 'a.dcm')
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(17):  # deeper than PATH_MAX, 4096 bytes
        os.mkdir('f' * 250, dir_fd=folder)
        deeper = os.open('f' * 250, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = deeper
    os.close(folder)
    found = inputs.find(tmp_path)
    assert found[0] == 'a.dcm'
    assert len(found) == 2
    with pytest.raises(inputs.Unreadable, match='cannot be read: File name too long'):
        inputs.read(tmp_path / found[1])
    assert '1 folders are left out; the first is' in caplog.text

    def deny(path):
        raise PermissionError(13, 'Permission denied', path)

    monkeypatch.setattr(os, 'listdir', deny)
    with pytest.raises(inputs.Unreadable, match='cannot be read: Permission denied'):
        inputs.read(tmp_path)
    monkeypatch.setattr(os, 'scandir', deny)
    with pytest.raises(UsageError, match=r'--input: .* cannot be listed: Permission denied'):
        inputs.find(tmp_path)


# Recognised by content.


@pytest.mark.parametrize('name', ['._x.dcm', '.DS_Store', 'Thumbs.db', 'DESKTOP.INI'])
def test_files_of_operating_systems_are_skipped(tmp_path, name):
    (tmp_path / name).write_bytes(b'\0\5\x16\7\0\2\0\0Mac OS X        ' + bytes(200))
    with pytest.raises(inputs.Skipped, match='of the operating system'):
        inputs.read(tmp_path / name)
    # The content decides.
    np.testing.assert_array_equal(inputs.read(make(tmp_path / name)).image, PICTURE)


def test_dicom_under_any_name(tmp_path):
    for name in ('x.dcm', 'x', 'x.png', 'x.txt'):
        np.testing.assert_array_equal(inputs.read(make(tmp_path / name)).image, PICTURE)


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_pictures_under_any_name(tmp_path, suffix):
    code = cv2.imencode(suffix, PICTURE)[1].tobytes()
    for name in ('x' + suffix, 'x.dcm', 'x'):
        (tmp_path / name).write_bytes(code)
        radiograph = inputs.read(tmp_path / name)
        np.testing.assert_allclose(radiograph.image, PICTURE, atol=0 if suffix == '.png' else 24)
        assert radiograph.header is None
        assert 'no SEG' in radiograph.notes[0]


def test_grey_saved_as_colour_and_sixteen_bits(tmp_path):
    cv2.imwrite(str(tmp_path / 'rgb.png'), cv2.merge([PICTURE] * 3))
    np.testing.assert_array_equal(inputs.read(tmp_path / 'rgb.png').image, PICTURE)
    cv2.imwrite(str(tmp_path / 'deep.png'), PICTURE.astype(np.uint16) * 11 + 500)
    low, high = int(PICTURE.min()), int(PICTURE.max())
    stretched = (PICTURE.astype(float) - low) * 255 / (high - low)
    np.testing.assert_allclose(inputs.read(tmp_path / 'deep.png').image, stretched, atol=0.51)


CT, SR = uid.CTImageStorage, uid.ComprehensiveSRStorage


@pytest.mark.parametrize(
    ('tags', 'expected'),
    [
        ({'SOPClassUID': CT, 'Modality': 'CT'}, 'CT Image Storage'),
        ({'SOPClassUID': SR, 'PixelData': None}, 'Comprehensive SR'),
        ({'SOPClassUID': uid.MediaStorageDirectoryStorage}, 'DICOMDIR'),
        ({'SOPClassUID': '1.2.3.999'}, 'unknown SOP class'),
        ({'SOPClassUID': uid.SecondaryCaptureImageStorage, 'Modality': 'MR'}, 'modality MR'),
        ({'NumberOfFrames': 3}, '3 frames'),
        ({'SamplesPerPixel': 3, 'PhotometricInterpretation': 'RGB'}, 'colour'),
    ],
)
def test_other_objects_are_skipped(tmp_path, tags, expected):
    with pytest.raises(inputs.Skipped, match=expected):
        inputs.read(make(tmp_path / 'x.dcm', **tags))


def test_other_files_are_skipped_without_waiting(tmp_path):
    (tmp_path / 'notes.txt').write_text('hello')
    (tmp_path / 'nothing').touch()
    cv2.imwrite(str(tmp_path / 'colour.png'), cv2.merge([PICTURE, 255 - PICTURE, PICTURE]))
    os.mkfifo(tmp_path / 'pipe.dcm')
    for name, expected in (
        ('notes.txt', 'not a DICOM'), ('nothing', 'empty'), ('colour.png', 'colour'),
        ('pipe.dcm', 'regular'), ('.', 'regular'),
    ):  # fmt: skip
        with pytest.raises(inputs.Skipped, match=expected):
            inputs.read(tmp_path / name)


def test_damaged_files_are_unreadable_and_name_nobody(tmp_path):
    whole = make(tmp_path / 'whole.dcm').read_bytes()
    png = cv2.imencode('.png', PICTURE)[1].tobytes()
    files = {
        'cut.dcm': whole[:-200],
        'noise.dcm': bytes(range(256)) * 8,
        'empty.dcm': b'',
        'bare': whole[132:-200],
        'cut.png': png[:-100],
        'huge.png': png[:16] + (100_000).to_bytes(4) * 2 + png[24:],
        'cut.jpg': cv2.imencode('.jpg', PICTURE)[1].tobytes()[:-100],
    }
    make(tmp_path / 'huge.dcm', Rows=65535, Columns=65535)
    os.symlink('/nowhere', tmp_path / 'link.dcm')
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name in (*files, 'huge.dcm', 'link.dcm'):
        with pytest.raises(inputs.Unreadable) as error:
            inputs.read(tmp_path / name)
        assert 'secret' not in str(error.value).lower()
        assert str(tmp_path) not in str(error.value)


def test_pixel_spacing_and_doubts(tmp_path):
    square = inputs.read(make(tmp_path / 'a', ImagerPixelSpacing=[0.1, 0.1]))
    assert square.spacing == (0.1, 0.1)
    assert square.aspect == 1
    assert inputs.read(make(tmp_path / 'b', PixelSpacing=[0.4, 0.2])).aspect == pytest.approx(2)
    assert inputs.read(make(tmp_path / 'c', PixelAspectRatio=[1, 2])).aspect == 0.5
    assert inputs.read(make(tmp_path / 'd', PixelSpacing=[0, 0])).spacing is None
    raw = uid.DigitalXRayImageStorageForProcessing
    assert 'raw' in inputs.read(make(tmp_path / 'e', SOPClassUID=raw, Modality='DX')).notes[0]


# Encodings. The reference is the same picture without compression.


@pytest.mark.parametrize('photometric', ['MONOCHROME1', 'MONOCHROME2'])
@pytest.mark.parametrize('signed', [False, True])
@pytest.mark.parametrize('bits', [8, 12, 16])
def test_phantoms_in_lossless_encodings(tmp_path, bits, signed, photometric):
    values = PICTURE.astype(np.int64) * ((1 << bits) - 1) // 255 - signed * (1 << bits - 1)
    pixels = values.astype(f'{"i" if signed else "u"}{1 if bits == 8 else 2}')
    tags = {'BitsStored': bits, 'HighBit': bits - 1, 'PhotometricInterpretation': photometric}
    plain = dicom.read(make(tmp_path / 'plain', pixels, **tags))
    expected = 255 - PICTURE if photometric == 'MONOCHROME1' else PICTURE
    np.testing.assert_allclose(dicom.to_uint8(plain), expected, atol=30)
    for syntax in (
        uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian,
    ):  # fmt: skip
        read = dicom.read(make(tmp_path / 'x', pixels, syntax, **tags))
        np.testing.assert_array_equal(read, plain, syntax.name)
    for syntax in (uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless):
        dataset = pydicom.dcmread(tmp_path / 'plain')
        try:
            dataset.compress(syntax)
        except RuntimeError as error:
            pytest.skip(f'no encoder for {syntax.name} here: {error}')
        dataset.save_as(tmp_path / 'x')
        np.testing.assert_array_equal(dicom.read(tmp_path / 'x'), plain, syntax.name)


@pytest.mark.parametrize('option', ['+el', '+e1', '+ee'])
@pytest.mark.parametrize('bits', [8, 12])
def test_phantoms_in_dcmtks_jpeg_encodings_as_dcmtk_decodes_them(tmp_path, bits, option):
    pytest.importorskip('gdcm')
    pixels = (PICTURE.astype(np.uint16) << bits - 8).astype(np.uint8 if bits == 8 else np.uint16)
    plain, coded, decoded = (tmp_path / name for name in ('plain', 'coded', 'decoded'))
    make(plain, pixels, BitsStored=bits, HighBit=bits - 1)
    try:
        subprocess.run(['dcmcjpeg', option, plain, coded], check=True, capture_output=True)
        subprocess.run(['dcmdjpeg', coded, decoded], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip('dcmcjpeg and dcmdjpeg (dcmtk) are not installed')
    assert pydicom.dcmread(coded).file_meta.TransferSyntaxUID.is_compressed
    expected = dicom.read(decoded).astype(np.float64)
    # Two decoders of lossy JPEG may round differently, by a step or two.
    rounding = 2 / 255 if option == '+ee' and bits == 8 else 0
    np.testing.assert_allclose(dicom.read(coded), expected, atol=rounding * expected.max())
    if option != '+ee':
        np.testing.assert_array_equal(expected, dicom.read(plain))
