"""The whole node against Orthanc: every image's result once, whatever happens in between."""

import signal
import sqlite3
import subprocess
import sys

import pydicom
import pytest

from tests.faults.conftest import small_disk
from tests.faults.zygote import Zygote
from tests.serving.files import radiograph
from tests.serving.nodes import Node, to_orthanc
from tests.tiny_runs import write_run
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.slow  # a node takes seconds to start


@pytest.fixture(scope='module')
def zygote():
    one = Zygote({'JAX_PLATFORMS': 'cpu'})
    yield one
    one._process.kill()
    one._process.wait()


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp('runs') / 'tiny').path


@pytest.fixture
def archive(orthanc):
    orthanc.clear()
    return orthanc


@pytest.fixture
def node(tmp_path, run, zygote, archive):
    with Node(tmp_path / 'node', run, zygote, to_orthanc(archive)) as one:
        yield one


def referenced(archive):
    """SOP Instance UIDs of the images that the archive has a SEG about, once for each SEG."""
    found = []
    for tags in archive.tags('SEG'):
        (series,) = tags['ReferencedSeriesSequence']
        (instance,) = series['ReferencedInstanceSequence']
        found.append(instance['ReferencedSOPInstanceUID'])
    return sorted(found)


def uids(datasets):
    return sorted(d.SOPInstanceUID for d in datasets)


def test_images_in_results_out_then_nothing_is_left_to_do(node, archive):
    node.arguments.append('--outputs=seg,sr,secondary_capture,gsps')
    node.start()
    sent = [radiograph(i, i // 2) for i in range(6)]
    assert node.store(*sent) == sent
    assert node.store(*sent[:3]) == sent[:3]  # again: confirmed, and no second result
    wait_for(lambda: len(archive.tags('SEG')) == 6, node.process)
    wait_for(lambda: 'state="waiting"' not in node.get('/metrics')[1], node.process)
    assert referenced(archive) == uids(sent)
    assert len(archive.tags('SR')) == 6
    results = list((node.state / 'results').rglob('*.dcm'))
    assert len(archive.get('/instances')) == len(results) > 12
    # An archive that forwards all it has sends results back; they are not taken for images.
    captures = list((node.state / 'results' / 'secondary_capture').iterdir())
    assert captures
    returned = [pydicom.dcmread(path) for path in captures]
    assert node.store(*returned) == returned
    assert f'objects_own_result_total {len(captures)}\n' in node.get('/metrics')[1]
    seg = archive.tags('SEG')[0]
    assert (seg['PatientName'], seg['SOPClassUID']) == ('Doe^Jane', '1.2.840.10008.5.1.4.1.1.66.4')
    assert node.get('/healthz') == (200, '{"ok": true, "why": []}\n')
    assert node.get('/readyz')[0] == 200
    figures = node.get('/metrics')[1]
    assert f'pneumojax_results_sent_total {len(results)}\n' in figures
    assert 'pneumojax_objects_duplicate_total 3\n' in figures
    assert node.get('/else')[0] == 404
    # Nobody is named.
    log = node.log.read_text()
    assert not [word for word in ('Doe', 'Jane', 'ID0', '1.2.826', 'STORESCU') if word in log]
    # A second node on the same folder is refused.
    assert node.kill(signal.SIGTERM) == 0
    assert node.events('ended')


def test_kills_at_any_change_of_a_file(node, archive):
    """Whatever it is doing: what was confirmed has its result once, in the end."""
    confirmed, number = [], 0
    for kill_at in (9, 17, 26, 40, 61):
        node.start(until='started', FAULT_AT=f'{kill_at} {node.state}')
        while node.process.poll() is None:
            number += 1
            confirmed += node.store(radiograph(number, number // 2))
            if number > 60 * kill_at:
                break
        assert node.kill() == -signal.SIGKILL
    node.start()
    wait_for(lambda: len(archive.tags('SEG')) >= len(confirmed), node.process)
    wait_for(lambda: 'state="waiting"' not in node.get('/metrics')[1], node.process)
    found = referenced(archive)
    assert len(found) == len(set(found))
    # One that was on the disk, and whose confirmation the kill prevented, may be there as well.
    assert set(uids(confirmed)) <= set(found)
    assert len(found) <= len(confirmed) + 5


def test_the_archive_is_down_for_a_while(node, archive):
    archive.stop()
    try:
        node.start()
        sent = [radiograph(i, i) for i in range(3)]
        assert node.store(*sent) == sent
        wait_for(lambda: len(node.events('not reachable')) >= 2, node.process)
        assert node.get('/healthz')[0] == 200
        assert 'pneumojax_reachable{archive="archive"} 0' in node.get('/metrics')[1]
        assert node.kill(signal.SIGTERM) == 0
    finally:
        archive.start()
    node.start()
    wait_for(lambda: len(archive.tags('SEG')) == 3, node.process)
    assert referenced(archive) == uids(sent)


def test_a_full_disk_then_room_again(node, archive):
    small_disk(node.state, '600k')
    try:
        node.start()
        sent = [radiograph(i, i, size=160) for i in range(30)]
        first = node.store(*sent)
        assert 0 < len(first) < 30
        assert node.events('object not stored')
        assert node.get('/healthz')[0] == 200
        subprocess.run(['mount', '-o', 'remount,size=50m', str(node.state)], check=True)
        assert node.store(*sent) == sent
        wait_for(lambda: len(archive.tags('SEG')) == 30, node.process)
        assert referenced(archive) == uids(sent)
        assert not node.events('dead letter')
    finally:
        node.kill()
        subprocess.run(['umount', '-l', str(node.state)], check=True)


def test_an_image_that_comes_while_its_study_is_predicted(node, archive):
    node.start()
    first = [radiograph(i, 1) for i in range(8)]
    assert node.store(*first) == first
    wait_for(lambda: node.events('predicted'), node.process)
    late = radiograph(8, 1)
    assert node.store(late) == [late]
    wait_for(lambda: len(archive.tags('SEG')) == 9, node.process)
    assert referenced(archive) == uids([*first, late])


def test_damaged_images_become_dead_letters_and_others_pass(tmp_path, run, zygote, archive):
    damaged, hip, good = radiograph(1), radiograph(2, 2), radiograph(3, 3)
    damaged.PixelData = damaged.PixelData[:1000]
    hip.Modality = 'MG'
    with Node(tmp_path / 'node', run, zygote, to_orthanc(archive), node='tries = 2') as node:
        node.start()
        assert node.store(damaged, hip, good) == [damaged, hip, good]
        wait_for(lambda: node.events('dead letter'), node.process)
        wait_for(lambda: archive.tags('SEG'), node.process)
        assert node.events('skipped')[0]['why'] == 'not a projection radiograph: modality MG'
        assert node.kill(signal.SIGTERM) == 0
        arguments = ['--mode=serve', f'--output={node.state}', '--dead_letters=list']
        listed = command(zygote, node, *arguments)
        assert listed.startswith('image 1, not predicted, 2 attempts: ')
        path = listed.strip().rpartition(': ')[2]
        assert path.startswith(str(node.state / 'inbox'))
        retried = command(zygote, node, *arguments[:2], '--dead_letters=retry')
        assert retried == '1 dead letters are tried again\n'
        node.start()
        wait_for(lambda: node.events('dead letter'), node.process)
    assert referenced(archive) == uids([good])


def command(zygote, node, *arguments):
    log = node.folder / 'command.txt'
    child = zygote.start(arguments=list(arguments), variables={}, folder=str(node.folder),
                         log=str(log))  # fmt: skip
    assert child.wait(PATIENCE) == 0
    return log.read_text()


def test_finished_files_are_deleted_and_others_are_not(tmp_path, run, zygote, archive):
    sent = [radiograph(i) for i in range(2)]
    with Node(tmp_path / 'node', run, zygote, to_orthanc(archive), node='keep_hours = 0') as node:
        node.start()
        (node.state / 'inbox' / 'mine.txt').write_text('mine')
        assert node.store(*sent) == sent
        # The keeper looks every ten seconds; a restart looks at once.
        wait_for(lambda: len(node.events('sent')) == 2, node.process)
        node.kill(signal.SIGTERM)
        node.start()
        wait_for(lambda: node.events('deleted'), node.process)
        left = [p.name for p in node.state.rglob('*') if p.is_file() and 'queue' not in p.name]
        assert sorted(left) == ['.lock', 'mine.txt']
        assert node.store(*sent) == sent  # still known
        wait_for(lambda: 'objects_duplicate_total 2' in node.get('/metrics')[1], node.process)


def test_a_second_node_and_a_foreign_folder_are_refused(node, zygote):
    node.start(until='started')
    second = node.folder / 'second.txt'
    # Not by the zygote, which runs one program at a time.
    done = subprocess.run(
        [sys.executable, '-m', 'pneumojax.main', *node.arguments],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert 'is in use by process' in done.stderr
    node.kill()
    second.write_text('mine')
    queue = node.state / 'queue.sqlite'
    assert sqlite3.connect(queue).execute('PRAGMA integrity_check').fetchone() == ('ok',)
    queue.unlink()
    child = zygote.start(arguments=node.arguments, variables={}, folder=str(node.folder),
                         log=str(second))  # fmt: skip
    assert child.wait(PATIENCE) == 2
    assert 'is not empty and holds no queue.sqlite' in second.read_text()
