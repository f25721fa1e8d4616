"""Polling Orthanc's DICOMweb: what is new is fetched once, as the archive stores it."""

import pydicom
import pytest
from pydicom import uid

from pneumojax.data.files import dicom
from pneumojax.serving.dicomweb import Archive
from pneumojax.serving.health import Figures
from pneumojax.serving.poll import Poller
from pneumojax.serving.settings import Poll
from tests.serving.files import radiograph


@pytest.fixture
def poller(orthanc, queue, inbox):
    orthanc.clear()

    def make(**changes):
        settings = Poll(**({'url': orthanc.web, 'every_seconds': 1.0} | changes))
        return Poller(settings, queue, inbox, Figures(), lambda: False)

    return make


def again(poller):
    poller._not_before = 0
    return poller.step()


def test_new_images_are_fetched_once(poller, orthanc, queue, inbox, tmp_path):
    one = poller()
    assert not one.step()
    assert one.is_reachable
    compressed = radiograph(1, 2)
    expected = compressed.pixel_array.copy()
    compressed.compress(uid.JPEGLSLossless, generate_instance_uid=False)
    hip = radiograph(2, 2)
    hip.Modality, hip.SeriesInstanceUID = 'CT', hip.SeriesInstanceUID + '.1'
    orthanc.upload(radiograph(0, 1), compressed, hip)
    assert not one.step()  # not yet
    assert again(one)
    assert queue.counts() == {('image', '', 'received'): 2}
    files = {pydicom.dcmread(p).SOPInstanceUID: p for p in inbox.folder.iterdir()}
    path = files[compressed.SOPInstanceUID]
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == uid.JPEGLSLossless
    assert (dicom.read(path) == expected).all()
    assert not again(one)
    assert len(files) == len(list(inbox.folder.iterdir()))
    orthanc.upload(radiograph(3, 1))  # a later image of a study that was seen
    assert again(one)
    assert queue.counts() == {('image', '', 'received'): 3}
    # A node that starts anew knows what it had.
    assert not poller().step()


def test_own_results_and_old_studies_are_left(poller, orthanc, queue):
    old, own = radiograph(1, 1), radiograph(2, 2)
    old.StudyDate = '20010101'
    own.ManufacturerModelName = 'pneumojax'
    orthanc.upload(old, own)
    assert not poller().step()
    assert queue.counts() == {}
    assert poller(days=36500 // 10).step() is False
    assert poller(modalities=('CR',)).step() is False


def test_many_studies(poller, orthanc, queue, monkeypatch):
    monkeypatch.setattr('pneumojax.serving.dicomweb._LIMITED', 3)
    orthanc.upload(*(radiograph(i, i, size=32) for i in range(7)))
    assert poller().step()
    assert queue.counts() == {('image', '', 'received'): 7}


def test_an_object_that_is_too_large_stops_only_itself(poller, orthanc, queue):
    orthanc.upload(radiograph(1, 1, size=1200), radiograph(2, 2))
    one = poller(max_object_mb=1)
    one.step()
    assert queue.counts() == {('image', '', 'received'): 1}


def test_an_archive_that_limits_its_answers(monkeypatch):
    entries = [{'n': i} for i in range(7)]
    archive = Archive('http://127.0.0.1:9/x', None, None, 1.0)
    monkeypatch.setattr('pneumojax.serving.dicomweb._LIMITED', 3)
    assert archive._all(lambda offset=0: entries[offset : offset + 3]) == entries
    assert archive._all(lambda offset=0: entries) == entries  # offsets ignored


def test_an_image_that_cannot_be_had_stops_only_itself(poller, orthanc, queue, monkeypatch):
    orthanc.upload(*(radiograph(i, i) for i in range(3)))
    one, broken = poller(), radiograph(0, 0).SOPInstanceUID
    fetch = one._archive.fetch

    def sometimes(study, series, instance, limit):
        return fetch(study, series, instance + '.9' * (instance == broken), limit)

    monkeypatch.setattr(one._archive, 'fetch', sometimes)
    assert one.step()
    assert queue.counts() == {('image', '', 'received'): 2}
    monkeypatch.setattr(one._archive, 'fetch', fetch)
    assert again(one)
    assert queue.counts() == {('image', '', 'received'): 3}


def test_no_archive(poller, queue):
    one = poller(url='http://127.0.0.1:9/dicom-web')
    assert not one.step()
    assert not one.is_reachable


def test_an_archive_that_comes_back(poller, orthanc, queue):
    one = poller()
    orthanc.upload(radiograph(0, 1))
    orthanc.stop()
    try:
        assert not one.step()
        assert not one.is_reachable
    finally:
        orthanc.start()
    assert again(one)
    assert one.is_reachable
