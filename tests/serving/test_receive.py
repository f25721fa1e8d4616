"""The C-STORE SCP against dcmtk's storescu and echoscu, and against pynetdicom where dcmtk is too
well-behaved."""

import contextlib
import hashlib
import socket
import struct
import subprocess

import pydicom
import pytest
from pydicom import uid
from pynetdicom import AE
from pynetdicom.sop_class import DigitalXRayImageStorageForPresentation, Verification

from pneumojax.data.files import dicom
from pneumojax.serving.inbox import Inbox
from pneumojax.serving.queue import Queue
from pneumojax.serving.settings import Peer
from tests.faults.conftest import small_disk
from tests.serving.dcmtk import find
from tests.serving.files import PREFIX, radiograph
from tests.waiting import PATIENCE, wait_for


def dcmtk(program, receiver, *arguments, called='PNEUMOJAX', calling='STORESCU'):
    path = find(program)
    if not path:
        pytest.skip('Debian package dcmtk is not installed')
    return subprocess.run(
        [path, '-aet', calling, '-aec', called, '127.0.0.1', str(receiver.port), *arguments],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


def associate(receiver, *contexts, syntaxes=(uid.ExplicitVRLittleEndian,)):
    ae = AE('STORESCU')
    for context in contexts or (DigitalXRayImageStorageForPresentation,):
        ae.add_requested_context(context, list(syntaxes))
    return ae.associate('127.0.0.1', receiver.port, ae_title='PNEUMOJAX')


def store(receiver, *datasets):
    """Statuses of one association."""
    association = associate(receiver)
    assert association.is_established
    statuses = [association.send_c_store(d).get('Status') for d in datasets]
    association.release()
    return statuses


def pixels(path):
    return dicom.read(path)


def test_echo(receiver):
    assert dcmtk('echoscu', receiver()).returncode == 0


def test_what_storescu_sends_is_in_the_inbox_pixel_for_pixel(receiver, radiographs, inbox, queue):
    result = dcmtk('storescu', receiver(), *map(str, radiographs))
    assert result.returncode == 0, result.stderr
    written = sorted(inbox.folder.iterdir())
    assert len(written) == 3 == queue.counts()['image', '', 'received']
    by_uid = {pydicom.dcmread(path).SOPInstanceUID: path for path in written}
    for path in radiographs:
        theirs = by_uid[pydicom.dcmread(path).SOPInstanceUID]
        assert (pixels(path) == pixels(theirs)).all()
        expected = hashlib.sha256(pydicom.dcmread(path).SOPInstanceUID.encode()).hexdigest()
        assert theirs.name.startswith(expected[:40])
        assert theirs.stat().st_mode & 0o777 in (0o600, 0o644)  # the node sets its umask


@pytest.mark.parametrize(
    'syntax',
    [
        uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian,
        uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless,
    ],
)  # fmt: skip
def test_other_transfer_syntaxes(receiver, inbox, tmp_path, syntax):
    dataset = radiograph(3, syntax=uid.ExplicitVRLittleEndian if syntax.is_compressed else syntax)
    expected = dataset.PixelData
    if syntax.is_deflated:
        dataset.file_meta.TransferSyntaxUID = syntax
    elif syntax.is_compressed:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(tmp_path / 'sent.dcm', enforce_file_format=True)
    association = associate(receiver(), syntaxes=[syntax])
    assert association.send_c_store(tmp_path / 'sent.dcm').Status == 0
    association.release()
    (path,) = inbox.folder.iterdir()
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    assert pixels(path).tobytes() == expected


def test_a_second_copy_is_confirmed_and_not_taken(receiver, radiographs, inbox, queue):
    one = receiver()
    for _ in range(2):
        assert dcmtk('storescu', one, str(radiographs[0])).returncode == 0
    assert len(list(inbox.folder.iterdir())) == 1
    assert store(one, radiograph(0, 1)) == [0x0000]
    changed = radiograph(0, 1)
    changed.ViewPosition = 'AP'  # corrected under the same UID
    assert store(one, changed) == [0x0000]
    assert queue.counts() == {('image', '', 'received'): 2}


def test_results_that_come_back_are_confirmed_and_not_taken(receiver, inbox, queue):
    own = radiograph(5)
    own.ManufacturerModelName = 'pneumojax'
    assert store(receiver(), own) == [0x0000]
    assert not list(inbox.folder.iterdir())
    assert not queue.counts()


@pytest.mark.parametrize(
    ('called', 'calling'),
    [('OTHER', 'STORESCU'), ('PNEUMOJAX', 'STRANGER'), ('PNEUMOJAX', 'ELSEWHERE')],
)
def test_only_listed_titles_from_their_own_addresses(receiver, called, calling):
    one = receiver()
    result = dcmtk('echoscu', one, called=called, calling=calling)
    assert result.returncode != 0
    assert 'Reject' in result.stderr
    assert dcmtk('echoscu', one).returncode == 0


def test_addresses_that_nobody_is_listed_with_do_not_get_a_byte(receiver):
    one = receiver(peer=(Peer('STORESCU', ('192.0.2.1',)),))
    with socket.create_connection(('127.0.0.1', one.port)) as connection:
        connection.settimeout(PATIENCE)
        assert connection.recv(1) == b''


def test_an_object_that_is_not_what_it_says(receiver, inbox):
    other = radiograph(1)
    association = associate(receiver())
    wrong = radiograph(2)
    other.SOPInstanceUID = f'{PREFIX}.9'
    # The message announces one instance, and the data set is of another.
    request = association.dimse.send_msg

    def lie(primitive, context_id):
        if hasattr(primitive, 'AffectedSOPInstanceUID'):
            primitive.AffectedSOPInstanceUID = other.SOPInstanceUID
        request(primitive, context_id)

    association.dimse.send_msg = lie
    assert association.send_c_store(wrong).Status == 0xA900
    association.release()
    assert not list(inbox.folder.iterdir())


@pytest.mark.parametrize('instance', ['../../../tmp/evil', '/etc/passwd', '1.2..3', 'a' * 64, ''])
@pytest.mark.filterwarnings('ignore')
def test_no_name_of_a_peer_reaches_the_disk(receiver, inbox, tmp_path, instance):
    before = {path for path in tmp_path.rglob('*') if 'queue' not in path.name}
    hostile = radiograph(1)
    hostile['SOPInstanceUID']._value = instance
    association = associate(receiver(timeout_seconds=10.0))
    try:
        status = association.send_c_store(hostile).get('Status')
        assert status != 0x0000
    except ValueError:  # pynetdicom will not even send it
        pass
    finally:
        association.abort()
    assert {path for path in tmp_path.rglob('*') if 'queue' not in path.name} == before


def test_a_full_disk_is_out_of_resources_and_then_works_again(receiver, tmp_path, inbox, queue):
    disk = tmp_path / 'disk'
    small_disk(disk, '100k')
    try:
        inbox.folder = disk
        one = receiver()
        statuses = store(one, *(radiograph(i, size=200) for i in range(4)))
        assert statuses == [0, 0, 0xA700, 0xA700]
        assert len(list(disk.iterdir())) == 2 == queue.counts()['image', '', 'received']
        subprocess.run(['mount', '-o', 'remount,size=1m', str(disk)], check=True)
        assert store(one, radiograph(2, size=200)) == [0]
    finally:
        subprocess.run(['umount', '-l', str(disk)], check=True)


def test_what_must_stay_free_stays_free(receiver, inbox, queue):
    one = receiver()
    inbox._free_bytes = 1 << 60
    assert store(one, radiograph(1)) == [0xA700]
    assert not list(inbox.folder.iterdir())


def test_an_object_beyond_the_limit_ends_the_association(receiver, inbox):
    one = receiver(max_object_mb=1)
    association = associate(one)
    large = radiograph(1, size=1500)
    assert 'Status' not in association.send_c_store(large)
    wait_for(lambda: not association.is_established)
    assert not list(inbox.folder.iterdir())
    assert store(one, radiograph(2)) == [0]


def test_a_pdu_that_claims_four_gigabytes_is_not_read(receiver):
    one = receiver()
    with socket.create_connection(('127.0.0.1', one.port)) as connection:
        connection.settimeout(PATIENCE)
        connection.sendall(struct.pack('>BBL', 1, 0, 0xFFFFFFF0) + b'\0' * 1000)
        with contextlib.suppress(ConnectionError):
            while connection.recv(1 << 16):
                pass
    assert dcmtk('echoscu', one).returncode == 0


def test_too_many_associations_are_told_so(receiver):
    one = receiver(max_associations=2)
    held = [associate(one, Verification) for _ in range(2)]
    assert all(association.is_established for association in held)
    third = associate(one, Verification)
    assert third.is_rejected
    # Connections that say nothing are counted as well, and dropped when there are too many.
    silent = [socket.create_connection(('127.0.0.1', one.port)) for _ in range(8)]
    for connection in silent:
        connection.settimeout(PATIENCE)
    dropped = sum(connection.recv(1) == b'' for connection in silent[-2:])
    assert dropped == 2
    for connection in silent:
        connection.close()
    for association in held:
        association.release()
    wait_for(lambda: dcmtk('echoscu', one).returncode == 0)


def test_what_a_kill_left_in_the_inbox_is_taken_up(inbox, queue, tmp_path, radiographs, receiver):
    assert dcmtk('storescu', receiver(), *map(str, radiographs)).returncode == 0
    (inbox.folder / 'mine.txt').write_text('not of the node')
    (inbox.folder / ('0' * 40 + '-' + '1' * 16 + '.dcm')).write_text('no DICOM')
    with Queue(tmp_path / 'lost.sqlite') as another:
        again = Inbox(inbox.folder, another, 0)
        again.adopt()
        again.adopt()
        assert another.counts() == queue.counts() == {('image', '', 'received'): 3}
    assert len(list(inbox.folder.iterdir())) == 5
