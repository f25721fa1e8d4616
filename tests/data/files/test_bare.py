"""Data sets without a file header are read; other files do not pass for one."""

import io

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import uid
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_dataset

from pneumojax.data.datasets import folder_dataset
from pneumojax.data.files import bare, dicom, inputs
from tests.data.files.test_inputs import PICTURE, make

SYNTAXES = [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian]


def data_set(path, syntax, **tags):
    """The bytes of a data set without preamble and meta information."""
    deep = np.asarray(PICTURE, np.uint16) * 257
    whole = pydicom.dcmread(make(path, deep, syntax, StudyDate='20200101', **tags))
    buffer = DicomFileLike(io.BytesIO())
    buffer.is_implicit_VR, buffer.is_little_endian = syntax.is_implicit_VR, syntax.is_little_endian
    write_dataset(buffer, whole)
    return buffer.parent.getvalue()


@pytest.mark.parametrize('syntax', SYNTAXES)
def test_a_bare_data_set_is_read(tmp_path, syntax):
    content = data_set(tmp_path / 'whole', syntax)
    expected = inputs.read(tmp_path / 'whole').image
    for name in ('IM000001', 'x.dcm'):
        path = tmp_path / name
        path.write_bytes(content)
        radiograph = inputs.read(path)
        np.testing.assert_array_equal(radiograph.image, expected)
        assert radiograph.header.SOPInstanceUID == '1.2.3'
        assert inputs.file_type(path) == 'dicom'
        assert folder_dataset._look(str(path)) == folder_dataset.Image(str(path), '1.2.3', 'SECRET')
        np.testing.assert_array_equal(dicom.to_uint8(dicom.read(path)), expected)


def test_meta_information_without_a_preamble(tmp_path):
    whole = make(tmp_path / 'whole', PICTURE, uid.ImplicitVRLittleEndian).read_bytes()
    (tmp_path / 'x').write_bytes(whole[132:])
    np.testing.assert_array_equal(inputs.read(tmp_path / 'x').image, PICTURE)


@pytest.mark.parametrize('syntax', SYNTAXES)
def test_a_bare_data_set_that_is_no_radiograph_is_skipped(tmp_path, syntax):
    content = data_set(tmp_path / 'whole', syntax, SOPClassUID=uid.CTImageStorage, Modality='CT')
    (tmp_path / 'x').write_bytes(content)
    with pytest.raises(inputs.Skipped, match='CT Image Storage'):
        inputs.read(tmp_path / 'x')


@pytest.mark.parametrize('syntax', SYNTAXES)
@pytest.mark.filterwarnings('ignore')
def test_a_bare_data_set_cut_short_is_an_error_without_a_name(tmp_path, syntax):
    content = data_set(tmp_path / 'whole', syntax)
    for length in (200, 400, len(content) - 100):
        (tmp_path / 'x').write_bytes(content[:length])
        with pytest.raises((inputs.Unreadable, inputs.Skipped)) as error:
            inputs.read(tmp_path / 'x')
        assert 'secret' not in str(error.value).lower()


@given(st.binary(min_size=0, max_size=600))
def test_noise_is_no_data_set(noise):
    for start in (b'', b'\x08\0', b'\x02\0', b'\0\x08'):
        assert not bare.is_data_set(start + noise)


def test_other_files_are_no_data_set():
    for text in (
        b'\x08\0\x05\0' + b'words of a text ' * 40,
        b'\x08\0' * 300,
        b'\x08\0\x10\0' + bytes(600),
    ):
        assert not bare.is_data_set(text)
