"""What several files of this folder share: DICOM files, an inbox, a receiver, an Orthanc."""

import pytest

pytest.importorskip('pynetdicom', reason="the extra 'node' is not installed")
pytest.importorskip('dicomweb_client', reason="the extra 'node' is not installed")

from pneumojax.serving import events
from pneumojax.serving.health import Figures
from pneumojax.serving.inbox import Inbox
from pneumojax.serving.queue import Queue
from pneumojax.serving.receive import Receiver
from pneumojax.serving.settings import Peer, Receive
from tests.faults.conftest import small_disk  # noqa: F401
from tests.serving import orthanc as orthanc_lib
from tests.serving.files import radiograph
from tests.waiting import PATIENCE


@pytest.fixture
def queue(tmp_path):
    with Queue(tmp_path / 'queue.sqlite') as queue:
        yield queue


@pytest.fixture
def inbox(tmp_path, queue):
    folder = tmp_path / 'inbox'
    folder.mkdir()
    return Inbox(folder, queue, 0)


@pytest.fixture
def receiver(inbox):
    """Makes receivers, with other settings than these if wanted, and stops them."""
    started = []

    def start(**changes):
        peers = Peer('STORESCU', ('127.0.0.1',)), Peer('ELSEWHERE', ('192.0.2.0/24',))
        settings = Receive(**({'peer': peers, 'port': 0, 'timeout_seconds': PATIENCE} | changes))
        with_log = events.structured()
        with_log.__enter__()
        one = Receiver(settings, 'PNEUMOJAX', inbox, Figures())
        one.start()
        started.append((one, with_log))
        return one

    yield start
    for one, with_log in started:
        one.stop()
        with_log.__exit__(None, None, None)


@pytest.fixture
def radiographs(tmp_path):
    """Two images of one study and one of another, as files."""
    folder = tmp_path / 'radiographs'
    folder.mkdir()
    paths = []
    for i, study in enumerate((1, 1, 2)):
        paths.append(folder / f'{i}.dcm')
        radiograph(i, study).save_as(paths[-1], enforce_file_format=True)
    return paths


@pytest.fixture(scope='session')
def orthanc(tmp_path_factory):
    """An archive with DICOMweb that all tests of a worker share."""
    with orthanc_lib.Orthanc(tmp_path_factory.mktemp('orthanc')) as archive:
        yield archive
