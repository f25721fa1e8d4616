"""Sending by C-STORE and STOW-RS, to Orthanc and to archives that refuse."""

import hashlib
import http.server
import threading

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pynetdicom import AE, evt

from pneumojax.errors import UsageError
from pneumojax.serving.health import Figures
from pneumojax.serving.send import Sender
from pneumojax.serving.settings import Login, Send
from tests.serving.files import radiograph
from tests.serving.orthanc import Orthanc, free_ports


@pytest.fixture
def results(tmp_path, queue):
    """A folder of five files in several transfer syntaxes, which wait for delivery."""
    folder = tmp_path / 'results'
    folder.mkdir()
    syntaxes = (
        uid.ExplicitVRLittleEndian, uid.RLELossless, uid.DeflatedExplicitVRLittleEndian,
        uid.JPEGLSLossless, uid.ImplicitVRLittleEndian,
    )  # fmt: skip
    files = []
    for i, syntax in enumerate(syntaxes):
        dataset = radiograph(i, i, syntax=uid.ExplicitVRLittleEndian)
        if syntax.is_deflated or not syntax.is_compressed:
            dataset = radiograph(i, i, syntax=syntax)
        else:
            dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(folder / f'{i}.dcm', enforce_file_format=True)
        files.append((f'{i}.dcm', str(i)))
    queue.add('image', 'content', 'study')
    queue.predicted(queue.begin_image(0.0), files, ['archive'])
    return folder


def sender(queue, results, **settings):
    settings = {'name': 'archive', 'timeout_seconds': 5.0, 'tries': 3} | settings
    return Sender(Send(**settings), 'PNEUMOJAX', queue, results, Figures(), lambda: False)


@pytest.fixture
def archive():
    """Makes SCPs on loopback that answer with a status; they list what they took."""
    running = []

    def start(status=0x0000, syntaxes=(uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian),
              storage=uid.DigitalXRayImageStorageForPresentation):  # fmt: skip
        ae, taken = AE('ARCHIVE'), []
        ae.add_supported_context(storage, list(syntaxes))

        def store(event):
            dataset = event.dataset
            dataset.file_meta = event.file_meta
            taken.append(dataset)
            return status

        server = ae.start_server(
            ('127.0.0.1', 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)]
        )
        running.append(server)
        port = server.server_address[1]
        return {'host': '127.0.0.1', 'port': port, 'ae_title': 'ARCHIVE'}, taken

    yield start
    for server in running:
        server.shutdown()


def states(queue):
    return {state: n for (kind, _, state), n in queue.counts().items() if kind == 'delivery'}


def same_pixels(results, taken):
    by_uid = {d.SOPInstanceUID: d for d in taken}
    for path in results.iterdir():
        sent = pydicom.dcmread(path)
        there = by_uid[sent.SOPInstanceUID]
        np.testing.assert_array_equal(sent.pixel_array, there.pixel_array)


def test_an_archive_that_takes_no_compression_gets_the_same_pixels(queue, results, archive):
    where, taken = archive()
    assert sender(queue, results, **where).step()
    assert states(queue) == {'sent': 5}
    assert {d.file_meta.TransferSyntaxUID for d in taken} <= {
        uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian,
    }  # fmt: skip
    same_pixels(results, taken)


def test_an_archive_that_takes_all_gets_each_file_as_it_is(queue, results, archive):
    everything = [pydicom.dcmread(p).file_meta.TransferSyntaxUID for p in results.iterdir()]
    where, taken = archive(syntaxes=everything)
    sender(queue, results, **where).step()
    assert states(queue) == {'sent': 5}
    assert {d.file_meta.TransferSyntaxUID for d in taken} == set(everything)
    same_pixels(results, taken)


@pytest.mark.parametrize('status', [0xB000, 0xB007, 0x0111])
def test_stored_with_a_warning_or_there_already_is_stored(queue, results, archive, status):
    sender(queue, results, **archive(status)[0]).step()
    assert states(queue) == {'sent': 5}


def test_what_is_refused_is_tried_again_and_then_dead(queue, results, archive):
    now = [1e9]
    queue._clock = lambda: now[0]
    one = sender(queue, results, **archive(0xC001)[0])
    for _ in range(3):
        assert states(queue) == {'waiting': 5}
        assert one.step()
        assert not one.step()  # not at once
        now[0] += 1000
    assert states(queue) == {'dead': 5}
    assert {d.reason for d in queue.dead()} == {'C-STORE status 0xC001'}
    assert queue.retry_dead() == 5
    assert states(queue) == {'waiting': 5}


def test_a_result_that_is_gone_or_damaged_keeps_back_no_other(queue, results, archive):
    (results / '0.dcm').unlink()
    damaged = pydicom.dcmread(results / '1.dcm')
    damaged.PixelData = pydicom.encaps.encapsulate([b'no RLE'])
    damaged.save_as(results / '1.dcm')
    where, taken = archive()
    one = sender(queue, results, tries=1, **where)
    assert one.step()
    assert states(queue) == {'sent': 3, 'dead': 2}
    assert {d.reason for d in queue.dead()} >= {'its file is gone'}
    assert len(taken) == 3


def test_a_full_archive_costs_no_attempt(queue, results, archive):
    one = sender(queue, results, **archive(0xA700)[0])
    for _ in range(5):
        one._not_before = 0
        one.step()
        assert not one.is_reachable
    assert states(queue) == {'waiting': 5}
    assert {d.tries for d in queue.due_deliveries('archive')} == {0}


def test_other_storage_classes_only(queue, results, archive):
    where, _ = archive(storage=uid.CTImageStorage)
    sender(queue, results, **where).step()
    assert states(queue) == {'waiting': 5}


def test_nobody_there_or_the_wrong_title(queue, results, archive):
    (port,) = free_ports(1)
    one = sender(queue, results, host='127.0.0.1', port=port, ae_title='ARCHIVE')
    assert one.step()
    assert not one.step()  # it waits
    assert not one.is_reachable
    assert states(queue) == {'waiting': 5}


# --- STOW-RS ------------------------------------------------------------------------------------


def test_stow_to_orthanc(queue, results, orthanc):
    orthanc.clear()
    assert sender(queue, results, url=orthanc.web).step()
    assert states(queue) == {'sent': 5}
    assert len(orthanc.get('/instances')) == 5
    # Whatever is sent twice is there once.
    queue.rows("UPDATE deliveries SET state = 'waiting'")
    assert sender(queue, results, url=orthanc.web).step()
    assert len(orthanc.get('/instances')) == 5


def test_stow_with_a_password(queue, results, tmp_path, monkeypatch):
    monkeypatch.setenv('NODE_TEST_PASSWORD', 'right')
    folder = tmp_path / 'orthanc'
    folder.mkdir()
    with Orthanc(folder, AuthenticationEnabled=True, RegisteredUsers={'me': 'right'}) as archive:
        one = sender(queue, results, url=archive.web)
        assert one.step()
        assert not one.is_reachable  # 401 is about the settings, not about a result
        assert states(queue) == {'waiting': 5}
        login = Login('me', password_env='NODE_TEST_PASSWORD')
        assert sender(queue, results, url=archive.web, login=login).step()
        assert states(queue) == {'sent': 5}


def test_a_missing_secret_is_said_at_the_start(queue, results, monkeypatch):
    monkeypatch.delenv('NODE_TEST_PASSWORD', raising=False)
    login = Login('me', password_env='NODE_TEST_PASSWORD')
    with pytest.raises(UsageError, match='NODE_TEST_PASSWORD is not set'):
        sender(queue, results, url='https://archive/x', login=login)


@pytest.fixture
def web():
    """Makes HTTP servers that give one answer, and list the requests."""
    running = []

    def start(status, body=b'', kind='application/dicom+json', headers=()):
        requests = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                size = self.headers.get('Content-Length')
                content = self.rfile.read(int(size)) if size else b''
                requests.append((dict(self.headers), hashlib.sha256(content).hexdigest()))
                self.send_response(status)
                self.send_header('Content-Type', kind)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header('Content-Length', str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return f'http://127.0.0.1:{server.server_address[1]}/dicom-web', requests

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


FAILED = b'{"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [%d]}}]}}'


@pytest.mark.parametrize(
    ('status', 'body', 'state', 'tries'),
    [
        (200, b'{}', 'waiting', 1),  # stored is what it says is stored
        (200, b'<html>please log in</html>', 'waiting', 0),
        (409, FAILED % 0x0111, 'sent', None),  # it has all of them already
        (202, FAILED % 0xC000, 'waiting', 1),
        (409, FAILED % 0x0110, 'waiting', 1),
        (400, b'', 'waiting', 1),
        (503, b'', 'waiting', 0),
        (403, b'', 'waiting', 0),
        (302, b'', 'waiting', 0),
    ],
)
def test_answers_to_stow(queue, results, web, status, body, state, tries):
    url, requests = web(status, body, headers=[('Location', 'http://elsewhere.invalid/')])
    sender(queue, results, url=url).step()
    assert states(queue) == {state: 5}
    found = {t for (t,) in queue.rows('SELECT tries FROM deliveries')}
    assert tries is None or found == {tries}
    assert len(requests) in (1, 5)


def test_a_token_is_sent_to_the_archive_alone(queue, results, web, monkeypatch):
    monkeypatch.setenv('NODE_TEST_TOKEN', 'abc')
    monkeypatch.setenv('HTTP_PROXY', 'http://192.0.2.1:1')  # nothing of the environment is used
    url, requests = web(409, FAILED % 0x0111)
    sender(queue, results, url=url, login=Login(token_env='NODE_TEST_TOKEN')).step()
    assert states(queue) == {'sent': 5}
    assert {headers['Authorization'] for headers, _ in requests} == {'Bearer abc'}


def test_an_endless_answer_is_cut(queue, results, web, monkeypatch):
    monkeypatch.setattr('pneumojax.serving.dicomweb._ANSWER_BYTES', 1000)
    url, _ = web(200, b' ' * 5000)
    one = sender(queue, results, url=url)
    one.step()
    assert not one.is_reachable
    assert states(queue) == {'waiting': 5}
