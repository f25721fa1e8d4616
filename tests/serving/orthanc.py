"""Debian's Orthanc with the DICOMweb plugin, on free ports of loopback, in a folder of its own."""

import json
import pathlib
import shutil
import socket
import subprocess
import urllib.error
import urllib.request

import pytest

from tests.waiting import wait_for

PLUGIN = pathlib.Path('/usr/share/orthanc/plugins/libOrthancDicomWeb.so')


def free_ports(count):
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(('127.0.0.1', 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Orthanc:
    """A context in which an Orthanc runs; `stop` and `start` in it keep what it stores.

    Args:
      folder: of its settings and storage.
      options: further settings.
    """

    def __init__(self, folder, **options):
        self.folder = pathlib.Path(folder)
        self.dicom_port, self.http_port = free_ports(2)
        self.url = f'http://127.0.0.1:{self.http_port}'
        self.web = f'{self.url}/dicom-web'
        self._options = options

    def __enter__(self):
        if not shutil.which('Orthanc') or not PLUGIN.exists():
            pytest.skip('Debian packages orthanc and orthanc-dicomweb are not installed')
        storage = str(self.folder / 'storage')
        settings = {
            'Name': 'test', 'StorageDirectory': storage, 'IndexDirectory': storage,
            'DicomAet': 'ORTHANC', 'DicomPort': self.dicom_port, 'HttpPort': self.http_port,
            'DicomAlwaysAllowStore': True, 'DicomCheckCalledAet': True,
            'AuthenticationEnabled': False, 'Plugins': [str(PLUGIN)],
            'DicomWeb': {'Enable': True, 'Root': '/dicom-web/'}, 'HttpServerEnabled': True,
        }  # fmt: skip
        (self.folder / 'orthanc.json').write_text(json.dumps(settings | self._options))
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        """Starts it and waits until it answers."""
        with (self.folder / 'orthanc.log').open('a') as log:
            self.process = subprocess.Popen(
                ['Orthanc', str(self.folder / 'orthanc.json')], stdout=log, stderr=log
            )
        wait_for(self.is_up, self.process)

    def is_up(self):
        """Whether it answers."""
        try:
            self.get('/system')
        except urllib.error.HTTPError as error:
            return error.code == 401
        except OSError:
            return False
        return True

    def stop(self):
        """Ends it."""
        self.process.terminate()
        self.process.wait()

    def get(self, path):
        """An answer of its REST interface."""
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def post(self, path, data):
        """The same."""
        request = urllib.request.Request(self.url + path, data=data, method='POST')
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def upload(self, *datasets):
        """Stores data sets."""
        for dataset in datasets:
            path = self.folder / 'upload.dcm'
            dataset.save_as(path, enforce_file_format=True)
            self.post('/instances', path.read_bytes())

    def tags(self, modality):
        """The tags of all instances of one modality, by keyword."""
        found = []
        for series in self.get('/series?expand'):
            if series['MainDicomTags'].get('Modality') == modality:
                found += [self.get(f'/instances/{i}/simplified-tags') for i in series['Instances']]
        return found

    def clear(self):
        """Deletes all that it stores."""
        for study in self.get('/studies'):
            request = urllib.request.Request(f'{self.url}/studies/{study}', method='DELETE')
            urllib.request.urlopen(request, timeout=60).close()
