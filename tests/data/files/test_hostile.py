"""Files that ask for too much or that foreign decoders do not survive; limits and helpers."""

import os
import signal
import socket

import cv2
import numpy as np
import pytest
from pydicom import uid
from pydicom.encaps import generate_frames

from pneumojax.data.datasets import siim
from pneumojax.data.files import codestreams, dicom, inputs, picture_files, sandbox
from pneumojax.errors import UsageError
from pneumojax.system import limits
from tests.data.files.test_inputs import PICTURE, make

TAGS = {
    'Rows': PICTURE.shape[0], 'Columns': PICTURE.shape[1], 'BitsAllocated': 8, 'BitsStored': 8,
    'PixelRepresentation': 0,
}  # fmt: skip


def frame_of(path, syntax):
    """One compressed frame."""
    import pydicom

    made = pydicom.dcmread(make(path))
    made.compress(syntax)
    return next(generate_frames(made.PixelData, number_of_frames=1))


# Helpers.


def request(syntax=uid.RLELossless, plugin='pydicom'):
    return {**TAGS, 'TransferSyntaxUID': syntax, 'Plugin': plugin}


def test_a_helper_gives_what_pydicom_gives_and_is_used_again(tmp_path, helper, monkeypatch):
    frame = frame_of(tmp_path / 'x', uid.RLELossless)
    monkeypatch.setattr(sandbox.subprocesses, 'start', None)  # no other can be started
    for _ in range(5):
        np.testing.assert_array_equal(sandbox.decode(frame, request()), PICTURE)
    with pytest.raises(sandbox.DecoderError):
        sandbox.decode(b'nonsense', request())
    np.testing.assert_array_equal(sandbox.decode(frame, request()), PICTURE)


@pytest.fixture
def helper():
    """A helper that works, and no other."""
    while not sandbox._idle.empty():
        sandbox._idle.get_nowait()._process.kill()
    helper = sandbox._take()
    sandbox._idle.put(helper)
    yield helper
    helper._process.kill()


def test_a_helper_that_dies_is_replaced(tmp_path, helper):
    frame = frame_of(tmp_path / 'x', uid.RLELossless)
    np.testing.assert_array_equal(sandbox.decode(frame, request()), PICTURE)
    os.kill(helper._process.pid, signal.SIGSEGV)
    helper._process.wait()
    np.testing.assert_array_equal(sandbox.decode(frame, request()), PICTURE)


def test_a_helper_that_hangs_is_ended(tmp_path, helper, monkeypatch):
    frame = frame_of(tmp_path / 'x', uid.RLELossless)
    np.testing.assert_array_equal(sandbox.decode(frame, request()), PICTURE)
    monkeypatch.setattr(sandbox, 'SECONDS', 0.5)
    os.kill(helper._process.pid, signal.SIGSTOP)
    with pytest.raises(sandbox.DecoderError, match='takes more than'):
        sandbox.decode(frame, request())
    assert not helper.alive


def test_a_helper_has_a_limit_of_memory(tmp_path, monkeypatch):
    frame = frame_of(tmp_path / 'x', uid.RLELossless)
    monkeypatch.setattr(sandbox, '_BYTES', 0)
    monkeypatch.setattr(sandbox, '_BYTES_PER_PIXEL', 1)
    big = request() | {'Rows': 4000, 'Columns': 4000}
    with pytest.raises(sandbox.DecoderError):
        sandbox.decode(frame + b'\x81\0' * 200_000, big)


# Streams that disagree with their tags.


@pytest.mark.parametrize(
    ('syntax', 'marker', 'at', 'value'),
    [
        (uid.JPEG2000Lossless, b'\xff\x51', 6, (60_000).to_bytes(4)),
        (uid.JPEGLSLossless, b'\xff\xf7', 5, (60_000).to_bytes(2)),
    ],
)
def test_a_stream_of_another_size_is_refused_before_it_is_decoded(
    tmp_path, monkeypatch, syntax, marker, at, value
):
    try:
        frame = bytearray(frame_of(tmp_path / 'x', syntax))
    except RuntimeError as error:
        pytest.skip(f'no encoder: {error}')
    rows, columns = PICTURE.shape
    assert codestreams.check(bytes(frame), syntax, rows, columns, 8) == 8
    where = frame.index(marker) + at
    frame[where : where + len(value)] = value
    with pytest.raises(codestreams.StreamError, match='60000'):
        codestreams.check(bytes(frame), syntax, rows, columns, 8)


def test_a_second_size_cannot_hide_behind_a_marker_without_length():
    code = cv2.imencode('.jpg', PICTURE)[1].tobytes()
    for marker in (0x01, 0xD0, 0xD8, 0xD9):
        with pytest.raises(codestreams.StreamError):
            codestreams.jpeg_header(code[:2] + bytes([0xFF, marker]) + code[2:])
    assert codestreams.jpeg_header(code)[:2] == PICTURE.shape


def test_scans_by_the_thousand_are_refused():
    code = cv2.imencode('.jpg', PICTURE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert codestreams.jpeg_header(code)[:2] == PICTURE.shape
    scan = code[code.rindex(b'\xff\xda') : -2]
    there = code.count(b'\xff\xda')
    most = code[:-2] + scan * (codestreams.MAX_SCANS - there) + code[-2:]
    assert codestreams.jpeg_header(most)[:2] == PICTURE.shape
    for shift in (b'', b'\0'):  # the next one at an even and at an odd place
        with pytest.raises(codestreams.StreamError, match='scans'):
            codestreams.jpeg_header(most[:-2] + shift + scan + code[-2:])


def test_jpeg_data_that_end_early_are_damage(tmp_path):
    code = cv2.imencode('.jpg', PICTURE)[1].tobytes()
    start = code.index(b'\xff\xda') + 20
    for name in ('x.jpg', 'x'):
        (tmp_path / name).write_bytes(code[:start] + code[-2:])
        assert cv2.imread(str(tmp_path / name)) is not None  # OpenCV sees nothing wrong
        with pytest.raises(inputs.Unreadable, match='damaged'):
            inputs.read(tmp_path / name)


def test_an_rle_segment_that_unpacks_to_gigabytes_is_counted_first():
    head = (1).to_bytes(4, 'little') + (64).to_bytes(4, 'little') + bytes(56)
    with pytest.raises(codestreams.StreamError, match='more than 10000 pixels'):
        codestreams.check(head + b'\x81\0' * 10**6, uid.RLELossless, 100, 100, 8)


# Limits.


@pytest.mark.parametrize('at_once', [0, 1 << 20])
def test_what_is_deflated_counts_as_it_is_inflated(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(limits, '_AT_ONCE', at_once)
    path = make(tmp_path / 'x', PICTURE * 0, uid.DeflatedExplicitVRLittleEndian)
    assert dicom.read(path).shape == PICTURE.shape
    monkeypatch.setattr(limits, 'MAX_IMAGE_BYTES', 5_000)
    assert path.stat().st_size < 5_000
    with pytest.raises(inputs.Unreadable, match=r'inflated file has .* limit of 5000'):
        inputs.read(path)
    with pytest.raises(dicom.DicomError, match=r'inflated file has .* limit of 5000'):
        dicom.read(path)


def test_a_length_beyond_the_end_takes_no_memory(tmp_path, monkeypatch):
    path = tmp_path / 'x'
    path.write_bytes(b'0123456789')
    for at_once in (0, 100):
        monkeypatch.setattr(limits, '_AT_ONCE', at_once)
        with limits.BoundedFile(path) as file:
            file.read(1)
            content = limits.in_memory(file)
            assert content.read(3) == b'012'
            assert content.read(1 << 40) == b'3456789'
    with pytest.raises(limits.TooLarge, match='has 10 bytes, more than the limit of 9'):
        limits.check_file(path, 9)


def test_a_png_chunk_beyond_the_end_is_refused_before_it_takes_memory(tmp_path, monkeypatch):
    """OpenCV allocates what a chunk states: 2 GiB for a file of 300 bytes."""
    png = cv2.imencode('.png', np.full((8, 8), 9, np.uint8))[1].tobytes()
    at = png.index(b'IDAT') - 4
    path = tmp_path / 'x.png'
    path.write_bytes(png + b'behind the end' + bytes(9))
    assert inputs.read(path).image.shape == (8, 8)
    path.write_bytes(png[:at] + (1 << 31).to_bytes(4) + png[at + 4 :])
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('it was decoded'))
    with pytest.raises(inputs.Unreadable, match='damaged'):
        inputs.read(path)


@pytest.mark.parametrize('suffix', ['.dcm', '.png', '.jpg'])
def test_large_files_are_one_line(tmp_path, monkeypatch, suffix):
    path = tmp_path / f'x{suffix}'
    if suffix == '.dcm':
        make(path)
    else:
        cv2.imwrite(str(path), PICTURE)
    monkeypatch.setattr(limits, 'MAX_IMAGE_BYTES', 1000)
    with pytest.raises(inputs.Unreadable, match='more than the limit of 1000') as error:
        inputs.read(path)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('ImageId,EncodedPixels\na,1 2,3 4\n', 'line 2: 3 cells under a header of 2'),
        ('ImageId,EncodedPixels\na,"1 2\nb,-1\n', 'cannot be read as a CSV'),
        ('ImageId,EncodedPixels\na,"1\n2"\n', 'control characters'),
        ('ImageId,EncodedPixels,EncodedPixels\na,1 2,-1\n', 'EncodedPixels appears twice'),
    ],
)
def test_a_mask_does_not_shrink_in_silence(tmp_path, text, expected):
    (tmp_path / 'a.dcm').touch()
    (tmp_path / 'train-rle.csv').write_text(text)
    with pytest.raises(UsageError, match=expected):
        siim.find(tmp_path)


def test_a_table_that_may_be_cut_short_is_mentioned(tmp_path, caplog):
    (tmp_path / 'a.dcm').touch()
    (tmp_path / 'train-rle.csv').write_text('ImageId,EncodedPixels\na,100 200 3 4')
    siim.find(tmp_path)
    assert 'cut short' in caplog.text
    caplog.clear()
    (tmp_path / 'train-rle.csv').write_text('ImageId,EncodedPixels\na,100 200 3 4\n')
    siim.find(tmp_path)
    assert 'cut short' not in caplog.text


def test_tables_have_limits(tmp_path, monkeypatch):
    (tmp_path / 'a.dcm').touch()
    (tmp_path / 'train-rle.csv').write_text('ImageId,EncodedPixels\n' + 'a,1 2\n' * 100)
    monkeypatch.setattr(limits, 'MAX_TABLE_ROWS', 99)
    with pytest.raises(UsageError, match='more than 99 rows'):
        siim.find(tmp_path)
    monkeypatch.setattr(limits, 'MAX_TABLE_BYTES', 99)
    with pytest.raises(UsageError, match='limit of 99'):
        siim.find(tmp_path)


def test_a_patients_file_without_a_header_names_nobody(tmp_path):
    (tmp_path / 'a.dcm').touch()
    (tmp_path / 'train-rle.csv').write_text('ImageId,EncodedPixels\na,-1\n')
    (tmp_path / 'patients.csv').write_text('a,Secret\n')
    with pytest.raises(UsageError) as error:
        siim.find(tmp_path, tmp_path / 'patients.csv')
    assert 'Secret' not in str(error.value)


# What is no file.


def special(path, kind):
    """Makes a named pipe or a socket; opening the first one would block, as nobody writes."""
    if kind == 'pipe':
        os.mkfifo(path)
    elif kind == 'device':
        os.symlink(os.devnull, path)
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.fspath(path))
    return path


@pytest.mark.parametrize('kind', ['pipe', 'socket', 'device'])
def test_only_regular_files_are_opened(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    path = special('x.dcm', kind)
    with monkeypatch.context() as patch:
        patch.setattr('io.FileIO', None)
        patch.setattr('builtins.open', None)
        with pytest.raises(inputs.Skipped, match='not a regular file'):
            inputs.read(path)
        assert inputs.file_type(path) == ''
        with pytest.raises(OSError, match='not a regular file'):
            limits.BoundedFile(path)
        with pytest.raises(dicom.DicomError, match=r'x\.dcm: cannot be read \(not a regular file'):
            dicom.read(path)
        with pytest.raises(ValueError, match='cannot be read: not a regular file'):
            picture_files.read_mask(path, max_pixels=9)
