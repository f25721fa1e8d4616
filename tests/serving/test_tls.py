"""TLS in both directions, with an authority and certificates made here."""

import datetime
import http.server
import shutil
import socket
import ssl
import subprocess
import threading
import warnings

import pytest

from pneumojax.errors import UsageError
from pneumojax.serving import dicomweb, tls
from pneumojax.serving.health import Figures
from pneumojax.serving.send import Sender
from pneumojax.serving.settings import Send, Tls
from tests.serving.dcmtk import find
from tests.serving.files import radiograph
from tests.waiting import PATIENCE


@pytest.fixture(scope='module')
def pki(tmp_path_factory):
    """A folder with an authority, another one, and certificates for loopback and a client."""
    if not shutil.which('openssl'):
        pytest.skip('openssl is not installed')
    folder = tmp_path_factory.mktemp('pki')

    def openssl(command):
        subprocess.run(['openssl', *command.split()], cwd=folder, check=True, capture_output=True)

    new = 'req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
    for ca in ('ca', 'other_ca'):
        openssl(
            f'{new} -x509 -keyout {ca}.key -out {ca}.pem -subj /CN={ca} -days 2 '
            '-addext keyUsage=critical,keyCertSign'
        )
    for name, ca, alternative in (
        ('node', 'ca', 'IP:127.0.0.1'), ('client', 'ca', 'DNS:client'),
        ('stranger', 'other_ca', 'IP:127.0.0.1'), ('elsewhere', 'ca', 'DNS:elsewhere'),
    ):  # fmt: skip
        openssl(f'{new} -keyout {name}.key -out {name}.csr -subj /CN={name}')
        # From Python 3.13 on, a certificate must name the key of its authority.
        (folder / 'ext').write_text(f'subjectAltName={alternative}\nauthorityKeyIdentifier=keyid\n')
        openssl(
            f'x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial '
            f'-out {name}.crt -days 2 -extfile ext'
        )
    return folder


def files(pki, name=None, ca='ca'):
    own = {'certificate': pki / f'{name}.crt', 'key': pki / f'{name}.key'} if name else {}
    return Tls(**own, ca=pki / f'{ca}.pem' if ca else None)


def echo(receiver, *arguments):
    path = find('echoscu')
    if not path:
        pytest.skip('Debian package dcmtk is not installed')
    return subprocess.run(
        [path, '-aet', 'STORESCU', '-aec', 'PNEUMOJAX', *map(str, arguments),
         '127.0.0.1', str(receiver.port)],
        capture_output=True, timeout=PATIENCE, check=False,
    ).returncode  # fmt: skip


def test_peers_must_show_a_certificate_of_the_authority(receiver, pki):
    one = receiver(tls=files(pki, 'node'))

    def with_(name):
        return '+tls', pki / f'{name}.key', pki / f'{name}.crt', '+cf', pki / 'ca.pem'

    assert echo(one, *with_('client')) == 0
    assert echo(one) != 0
    assert echo(one, *with_('stranger')) != 0
    assert echo(one, '+tla', '+cf', pki / 'ca.pem') != 0
    # A connection that says nothing keeps nobody else waiting.
    with socket.create_connection(('127.0.0.1', one.port)):
        assert echo(one, *with_('client')) == 0


def test_old_protocols_are_refused(receiver, pki):
    one = receiver(tls=files(pki, 'node', ca=None))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pki / 'ca.pem')
    with warnings.catch_warnings(action='ignore'):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers('ALL:@SECLEVEL=0')
    with socket.create_connection(('127.0.0.1', one.port)) as plain:
        plain.settimeout(PATIENCE)
        with pytest.raises(OSError):  # noqa: PT011
            context.wrap_socket(plain, server_hostname='127.0.0.1')


@pytest.mark.parametrize(
    ('server', 'client', 'ca', 'works'),
    [
        ('node', 'client', 'ca', True),
        ('node', None, 'ca', False),  # the archive asks for a certificate
        ('stranger', 'client', 'ca', False),  # not of the authority
        ('elsewhere', 'client', 'ca', False),  # for another host
    ],
)
def test_results_are_sent_by_tls(receiver, queue, tmp_path, pki, server, client, ca, works):
    """To our own receiver, as Debian's Orthanc of this version speaks no TLS for DICOM."""
    archive = receiver(tls=files(pki, server))
    radiograph(1, size=900).save_as(tmp_path / 'result.dcm', enforce_file_format=True)
    queue.add('image', 'content', 'study')
    queue.predicted(queue.begin_image(0.0), [('result.dcm', 'x')], ['archive'])
    settings = Send(
        'archive',
        host='127.0.0.1',
        port=archive.port,
        ae_title='PNEUMOJAX',
        timeout_seconds=5.0,
        tls=files(pki, client, ca),
    )
    Sender(settings, 'STORESCU', queue, tmp_path, Figures(), lambda: False).step()
    states = {s: n for (kind, _, s), n in queue.counts().items() if kind == 'delivery'}
    assert states == ({'sent': 1} if works else {'waiting': 1})


@pytest.mark.parametrize(('server', 'works'), [('node', True), ('stranger', False)])
def test_dicomweb_by_tls(pki, server, works):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header('Content-Type', 'application/dicom+json')
            self.send_header('Content-Length', '2')
            self.end_headers()
            self.wfile.write(b'[]')

        def log_message(self, *_):
            pass

    site = http.server.HTTPServer(('127.0.0.1', 0), Handler)
    context = tls.server(files(pki, server))
    site.socket = context.wrap_socket(site.socket, server_side=True)
    thread = threading.Thread(target=site.serve_forever, daemon=True)
    thread.start()
    try:
        url = f'https://127.0.0.1:{site.server_address[1]}/dicom-web'
        archive = dicomweb.Archive(url, None, files(pki, 'client'), 5.0)
        today = datetime.date.today().strftime('%Y%m%d')
        if works:
            assert archive.studies('DX', today) == {}
        else:
            with pytest.raises(dicomweb.Failed, match='SSLError'):
                archive.studies('DX', today)
    finally:
        site.shutdown()
        site.server_close()


def test_files_that_are_no_certificates(pki, tmp_path):
    (tmp_path / 'bad').write_text('no certificate')
    with pytest.raises(UsageError, match='expected PEM'):
        tls.server(Tls(certificate=tmp_path / 'bad', key=pki / 'node.key'))
    with pytest.raises(UsageError, match='belongs to the certificate'):
        tls.client(Tls(certificate=pki / 'node.crt', key=pki / 'client.key'))
