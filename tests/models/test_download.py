"""The cache folder and the download, against a server on this machine."""

import hashlib
import http.server
import pathlib
import threading

import pytest

from pneumojax.errors import UsageError
from pneumojax.models import download
from pneumojax.models.download import Source

CONTENT = bytes(range(256)) * 5000


@pytest.fixture
def server(monkeypatch):
    """Serves CONTENT at /whole and, cut off halfway, at /half; counts the requests."""
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            if self.path not in ('/whole', '/half'):
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header('Content-Length', str(len(CONTENT)))
            self.end_headers()
            end = len(CONTENT) // 2 if self.path == '/half' else None
            self.wfile.write(CONTENT[:end])

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f'http://127.0.0.1:{httpd.server_address[1]}', requests
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / 'deep' / 'cache'
    monkeypatch.setenv('PNEUMOJAX_CACHE', str(folder))
    return folder


def source(url, content=CONTENT, name='weights.safetensors'):
    return Source(url, name, hashlib.sha256(content).hexdigest())


def files(folder):
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_whole_once(server, cache):
    url, requests = server
    for _ in range(2):
        path = download.resolve('imagenet', [source(f'{url}/whole')])
        assert path == cache / 'weights.safetensors'
        assert path.read_bytes() == CONTENT
    assert requests == ['/whole']
    assert files(cache) == ['weights.safetensors']


@pytest.mark.parametrize(
    ('page', 'content', 'message'),
    [
        ('half', CONTENT, r'cut off after 640000 of 1280000 bytes'),
        ('whole', b'something else', r'SHA-256 is .*expected .*not kept'),
        ('gone', CONTENT, r'404'),
    ],
)
def test_what_is_not_whole_and_right_leaves_nothing(server, cache, page, content, message):
    url, requests = server
    with pytest.raises(UsageError, match=message) as e:
        download.resolve('imagenet', [source(f'{url}/{page}', content)])
    assert '\n' not in str(e.value)
    assert files(cache) == []
    # A later run is not deceived: it asks again, and succeeds when the server does.
    download.resolve('imagenet', [source(f'{url}/whole')])
    assert requests == [f'/{page}', '/whole']


def test_offline_says_which_file_to_put_where(cache):
    offline = source('http://127.0.0.1:9/weights')  # the discard port: nothing listens
    with pytest.raises(UsageError) as e:
        download.resolve('imagenet', [offline])
    for part in (offline.url, offline.sha256, str(cache / offline.name), 'model.pretrained'):
        assert part in str(e.value)
    assert files(cache) == []
    cache.mkdir(parents=True, exist_ok=True)
    (cache / offline.name).write_bytes(CONTENT)
    assert download.resolve('imagenet', [offline]).read_bytes() == CONTENT


def test_a_cached_file_is_checked_again(cache):
    cache.mkdir(parents=True)
    (cache / 'weights.safetensors').write_bytes(CONTENT[:-1])
    with pytest.raises(UsageError, match=r'SHA-256 is .*delete the file'):
        download.resolve('imagenet', [source('http://127.0.0.1:9/weights')])


def test_a_cache_folder_that_cannot_be_written(tmp_path, monkeypatch):
    blocked = tmp_path / 'file'
    blocked.write_text('in the way')
    monkeypatch.setenv('PNEUMOJAX_CACHE', str(blocked / 'cache'))
    with pytest.raises(UsageError, match=r'cache folder .* cannot be written.*PNEUMOJAX_CACHE'):
        download.resolve('imagenet', [source('http://127.0.0.1:9/weights')])
    monkeypatch.setenv('PNEUMOJAX_CACHE', str(blocked))
    with pytest.raises(UsageError, match=r'cannot be written'):
        download.resolve('imagenet', [source('http://127.0.0.1:9/weights')])


def test_either_file_will_do_if_it_is_there(server, cache):
    url, requests = server
    sources = [source(f'{url}/whole'), source(f'{url}/gone', name='weights.pth')]
    cache.mkdir(parents=True)
    (cache / 'weights.pth').write_bytes(CONTENT)
    assert download.resolve('imagenet', sources).suffix == '.pth'
    (cache / 'weights.pth').unlink()
    assert download.resolve('imagenet', sources).suffix == '.safetensors'
    assert requests == ['/whole']


def test_paths(tmp_path):
    assert download.resolve(str(tmp_path)) == tmp_path
    with pytest.raises(UsageError, match=r"no such file; give 'imagenet' or"):
        download.resolve(str(tmp_path / 'nothing.pth'))


def test_the_published_files():
    other, original = download.IMAGENET
    assert original.name.split('-')[1].removesuffix('.pth') == original.sha256[:8]
    assert original.url.startswith('https://download.pytorch.org/models/')
    assert other.name.endswith('.safetensors')
    third_party = pathlib.Path(__file__).parents[2] / 'third_party'
    assert original.sha256 in (third_party / 'torchvision' / 'README.md').read_text()
    assert other.sha256 in (third_party / 'timm' / 'README.md').read_text()
