"""What lies in deploy/: settings that can be read, and an Orthanc that forwards as they say."""

import json
import pathlib
import re

import pydicom

from pneumojax.serving import settings
from tests.serving.files import radiograph
from tests.serving.orthanc import Orthanc
from tests.waiting import wait_for

DEPLOY = pathlib.Path(__file__).parents[2] / 'deploy'


def without_comments(name):
    text = (DEPLOY / name).read_text()
    return '\n'.join(line for line in text.splitlines() if not line.lstrip().startswith('#'))


def test_the_settings_of_the_compose_file_fit_it():
    node = settings.read(DEPLOY / 'compose.toml')
    orthanc = json.loads((DEPLOY / 'orthanc.json').read_text())
    compose = without_comments('compose.yaml')
    known = orthanc['DicomModalities']['pneumojax']
    assert (known['AET'], known['Port']) == (node.node.ae_title, node.receive.port)
    assert f'\n  {known["Host"]}:\n' in compose
    assert f'\n  {node.send[0].host}:\n' in compose
    assert (node.send[0].port, node.send[0].ae_title) == (4242, orthanc['DicomAet'])
    (subnet,) = re.findall(r'subnet: ([\d./]+)', compose)
    (peer,) = node.receive.peer
    assert (peer.ae_title, peer.addresses) == (orthanc['DicomAet'], (subnet,))
    for path in re.findall(r'- \./(\S+?):', compose):
        assert (DEPLOY / path).is_file()


def test_the_container_is_not_root_and_has_the_extras():
    docker = without_comments('Dockerfile')
    targets = re.findall(r'^FROM \S+ AS (\w+)$', docker, re.MULTILINE)
    assert {'node', 'orthanc'} <= set(targets)
    assert docker.count('\nUSER ') == 2
    assert '[cpu,node]' in docker
    bases = set(re.findall(r'^FROM (\S+)', docker, re.MULTILINE))
    assert bases - set(targets) == {'debian:bookworm-slim'}


def test_orthanc_forwards_what_the_script_says(receiver, inbox, queue, tmp_path):
    node = receiver(peer=(settings.Peer('ORTHANC', ('127.0.0.1',)),))
    options = json.loads((DEPLOY / 'orthanc.json').read_text())
    options['DicomModalities']['pneumojax'] |= {'Host': '127.0.0.1', 'Port': node.port}
    options['LuaScripts'] = [str(DEPLOY / 'forward.lua')]
    kept = {key: options[key] for key in ('DicomModalities', 'LuaScripts', 'DicomAet')}
    folder = tmp_path / 'orthanc'
    folder.mkdir()
    hip = radiograph(3, 3)
    hip.Modality = 'SEG'
    with Orthanc(folder, **kept) as archive:
        archive.upload(hip, radiograph(1, 1), radiograph(2, 2))
        wait_for(lambda: queue.counts().get(('image', '', 'received')) == 2, archive.process)
    found = {pydicom.dcmread(path).Modality for path in inbox.folder.iterdir()}
    assert found == {'DX'}
