"""Hostile peers of a node: garbage, damaged associations, and hostile objects in sound ones.

    python -m tests.fuzz.associations --cases=5000 --seed=1

A node serves in a process of its own, which also predicts whatever it takes. What counts: the node
ends or says that a part of it failed, it stops to answer a C-ECHO, it takes too much memory, a file
appears anywhere but under its own names, or its log names a patient or has a traceback.
"""

import argparse
import collections
import contextlib
import io
import logging
import pathlib
import random
import re
import signal
import socket
import struct
import sys
import tempfile
import time
import warnings
import zlib

import pydicom
from pydicom import uid
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.sop_class import Verification

from tests.serving.files import radiograph

_MEMORY = 2 << 30  # bytes of a node whose peers are hostile
_OURS = re.compile(
    r'inbox/[0-9a-f]{40}-[0-9a-f]{16}\.dcm|results/\w+/[0-9a-f]{40}-[0-9a-f]{16}\.dcm'
)
_STATE = ('queue.sqlite', 'queue.sqlite-wal', 'queue.sqlite-shm', '.lock')


class Peer:
    """Attacks whoever listens on a port of loopback.

    Args:
      port: of the node.
      seed: the same seed gives the same attacks.
    """

    def __init__(self, port: int, seed: int):
        self.port, self._dice = port, random.Random(seed)
        self._session = record(port)
        kinds = (self.garbage, self.damaged_session, self.hostile_object, self.hostile_message)
        self._kinds = {kind.__name__: kind for kind in kinds}

    def attack(self) -> str:
        """One case; returns its kind."""
        name = self._dice.choice(list(self._kinds))
        with contextlib.suppress(OSError, ValueError, RuntimeError, struct.error):
            self._kinds[name]()
        return name

    def garbage(self) -> None:
        """Bytes, some of which look like the start of a PDU."""
        dice = self._dice
        content = dice.randbytes(dice.choice([0, 1, 5, 6, 7, 100, 5000]))
        if dice.random() < 0.6:
            length = dice.choice([0, 1, len(content), 1 << 16, (1 << 32) - 1])
            content = struct.pack('>BBL', dice.randint(0, 8), 0, length) + content
        self._talk([content])

    def damaged_session(self) -> None:
        """A real session in which some bytes are others, missing, or twice there."""
        pieces = list(self._session)
        for _ in range(self._dice.choice([1, 1, 2, 5])):
            index = self._dice.randrange(len(pieces))
            pieces[index] = mutate(self._dice, pieces[index])
        if self._dice.random() < 0.2:
            self._dice.shuffle(pieces)
        self._talk(pieces)

    def hostile_object(self) -> None:
        """A sound message whose data set is not, or not what it says."""
        dice = self._dice
        dataset = radiograph(dice.randrange(10**6), dice.randrange(50), name='Zzname^Zz')
        syntax = dice.choice([
            uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian,
            uid.DeflatedExplicitVRLittleEndian, uid.JPEGBaseline8Bit,
        ])  # fmt: skip
        instance = dataset.SOPInstanceUID
        content = encode(dataset, syntax)
        match dice.randrange(6):
            case 0:
                instance = dice.choice(['../../../../tmp/evil', '/etc/cron.d/x', '1.' * 40, '..',
                                        '1.2.3', 'a\0b', '%s%n', ' '])  # fmt: skip
            case 1:
                content = zlib.compress(bytes(1 << 26))[2:-4]  # 64 MB of zeros, and no data set
                syntax = uid.DeflatedExplicitVRLittleEndian
            case 2:
                nested = b'\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff'
                content = nested * dice.choice([10, 2000])
            case _:
                for _ in range(dice.choice([1, 3, 20])):
                    content = mutate(dice, content)
        self._store(instance, content, syntax)

    def hostile_message(self) -> None:
        """A sound association, then messages that nobody expects."""
        ae = AE('STORESCU')
        ae.add_requested_context(Verification)
        ae.add_requested_context(uid.DigitalXRayImageStorageForPresentation)
        ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = 5
        association = ae.associate('127.0.0.1', self.port, ae_title='PNEUMOJAX')
        if not association.is_established:
            return
        dice = self._dice
        connection = association.dul.socket.socket
        for _ in range(dice.choice([1, 3, 30])):
            # The message control header, then a command or a part of a data set.
            part = struct.pack('BB', dice.choice([1, 3, 5, 255]), dice.choice([0, 1, 2, 3, 255]))
            part += dice.choice([dice.randbytes(50), command(dice), b''])
            item = struct.pack('>L', len(part)) + part
            connection.sendall(struct.pack('>BBL', 4, 0, len(item)) + item)
        if dice.random() < 0.5:
            association.abort()
        else:
            connection.close()
            association.kill()

    def echo(self) -> bool:
        """Whether the node answers a sound peer."""
        ae = AE('STORESCU')
        ae.add_requested_context(Verification)
        association = ae.associate('127.0.0.1', self.port, ae_title='PNEUMOJAX')
        if not association.is_established:
            return False
        status = association.send_c_echo().get('Status')
        association.release()
        return status == 0

    def _talk(self, pieces: list[bytes]) -> None:
        with socket.create_connection(('127.0.0.1', self.port), timeout=5) as connection:
            connection.settimeout(0.2)
            for piece in pieces:
                connection.sendall(piece)
                with contextlib.suppress(TimeoutError):
                    connection.recv(1 << 16)

    def _store(self, instance: str, content: bytes, syntax: uid.UID) -> None:
        ae = AE('STORESCU')
        ae.add_requested_context(uid.DigitalXRayImageStorageForPresentation, [syntax])
        ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = 5
        association = ae.associate('127.0.0.1', self.port, ae_title='PNEUMOJAX')
        if not association.is_established:
            return
        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID = uid.DigitalXRayImageStorageForPresentation
        request._affected_sop_instance_uid = uid.UID(instance)  # not checked here
        request.DataSet = io.BytesIO(content)
        association._reactor_checkpoint.clear()
        association.dimse.send_msg(request, 1)
        association.dimse.get_msg(block=True)
        association._reactor_checkpoint.set()
        association.release()


def record(port: int) -> list[bytes]:
    """What a sound peer sends that stores one image, PDU by PDU."""
    sent = []
    ae = AE('STORESCU')
    ae.add_requested_context(uid.DigitalXRayImageStorageForPresentation)
    association = ae.associate('127.0.0.1', port, ae_title='PNEUMOJAX')
    assert association.is_established
    request = A_ASSOCIATE_RQ(association.requestor.primitive)
    sent.append(request.encode())
    send = association.dul.socket.send

    def note(content: bytes) -> None:
        sent.append(bytes(content))
        send(content)

    association.dul.socket.send = note
    association.send_c_store(radiograph(0, name='Zzname^Zz'))
    association.release()
    return sent


def encode(dataset: pydicom.Dataset, syntax: uid.UID) -> bytes:
    """The data set without its file header."""
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = syntax.is_implicit_VR, True
    pydicom.filewriter.write_dataset(buffer, dataset)
    content = buffer.getvalue()
    if syntax.is_deflated:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        content = packer.compress(content) + packer.flush()
    return content


def command(dice: random.Random) -> bytes:
    """A command set with a random field, SOP class and instance."""
    elements = [
        (0x0002, dice.choice([b'1.2.840.10008.1.1\0', b'../..', b'1.2.840.10008.5.1.4.1.1.1.1\0'])),
        (0x0100, struct.pack('<H', dice.choice([1, 0x10, 0x20, 0x21, 0x30, 0x100, 0x110, 0x8001]))),
        (0x0110, struct.pack('<H', 1)),
        (0x0800, struct.pack('<H', dice.choice([0x101, 1]))),
        (0x1000, dice.choice([b'../../x ', b'1.2.3\0', dice.randbytes(64)])),
    ]  # fmt: skip
    return b''.join(
        struct.pack('<HHL', 0, number, dice.choice([len(v), len(v), len(v), 1 << 31])) + v
        for number, v in elements
    )


def mutate(dice: random.Random, content: bytes) -> bytes:
    """The same bytes but for a change."""
    changed = bytearray(content)
    if not changed:
        return dice.randbytes(8)
    at = dice.randrange(len(changed)) if dice.random() < 0.5 else dice.randrange(
        min(len(changed), 300)
    )  # fmt: skip
    match dice.randrange(6):
        case 0:
            changed[at] ^= 1 << dice.randrange(8)
        case 1:
            changed[at : at + 4] = dice.choice([b'\xff\xff\xff\xff', bytes(4), b'\xff\xff\xff\x7f'])
        case 2:
            del changed[at : at + dice.choice([1, 2, 10, 1000])]
        case 3:
            changed[at:at] = changed[at : at + dice.choice([1, 10, 1000])]
        case 4:
            changed[at:at] = dice.randbytes(dice.choice([1, 8, 100]))
        case 5:
            del changed[at:]
    return bytes(changed)


def strangers(state: pathlib.Path) -> list[str]:
    """Files in a node's folder that have other names than its own."""
    found = [p.relative_to(state).as_posix() for p in state.rglob('*') if not p.is_dir()]
    return [f for f in found if f not in _STATE and not _OURS.fullmatch(f) and '/.' not in f]


def memory(pid: int) -> int:
    """Bytes of memory that a process has."""
    text = pathlib.Path(f'/proc/{pid}/status').read_text()
    return 1024 * int(re.search(r'VmRSS:\s+(\d+)', text)[1])


def main() -> int:
    """Exit status 1 when anything broke."""
    from tests.faults.zygote import Zygote
    from tests.serving.nodes import Node
    from tests.tiny_runs import write_run

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--cases', type=int, default=5000)
    parser.add_argument('--seed', type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # of the attacker's own libraries
    warnings.simplefilter('ignore')
    began, counts, largest = time.monotonic(), collections.Counter(), 0
    nowhere = '[[send]]\nname = "a"\nhost = "127.0.0.1"\nport = 9\nae_title = "X"\n'
    with tempfile.TemporaryDirectory(prefix='hostile-') as folder:
        root = pathlib.Path(folder)
        run = write_run(root / 'run').path
        zygote = Zygote({'JAX_PLATFORMS': 'cpu'})
        with Node(root / 'node', run, zygote, nowhere, node='tries = 1\nkeep_hours = 0') as node:
            node.start()
            before = {p for p in root.rglob('*') if node.state not in p.parents}
            peer = Peer(node.port, options.seed)
            for case in range(options.cases):
                counts[peer.attack()] += 1
                if case % 50 == 49:
                    largest = max(largest, memory(node.process.pid))
                    broken = [] if peer.echo() else ['no answer to a C-ECHO']
                    if case % 500 == 499:
                        print(f'{case + 1} cases, {largest >> 20} MiB at most', flush=True)
                    if broken or node.process.poll() is not None or largest > _MEMORY:
                        print('BROKEN', case, broken, largest, node.log.read_text()[-3000:])
                        return 1
            healthy = node.get('/healthz')
            figures = node.get('/metrics')[1]
            after = {p for p in root.rglob('*') if node.state not in p.parents}
            text = node.log.read_text()
            problems = [
                *(f'{p} is outside' for p in after - before),
                *(f'{f} is not of the node' for f in strangers(node.state)),
                *(['not healthy'] if healthy[0] != 200 else []),
                *(['a patient is named'] if 'zzname' in text.lower() else []),
                *(['a traceback'] if 'Traceback' in text else []),
                *(['a part or thread failed'] if 'part failed' in text else []),
            ]
            threads = len(node.events('thread failed'))
            status = node.kill(signal.SIGTERM)
        zygote._process.kill()
    taken = re.search(r'objects_new_total (\d+)', figures)[1]
    predicted = re.search(r'images_predicted_total (\d+)', figures)[1]
    print(
        f'{options.cases} cases of seed {options.seed} in {time.monotonic() - began:.0f} s: '
        f'{dict(counts)}; {taken} objects taken, {predicted} of them predicted; '
        f'{largest >> 20} MiB at most, {threads} library threads ended by an exception, '
        f'status {status}; problems: {problems or "none"}'
    )
    return bool(problems) or status != 0


if __name__ == '__main__':
    sys.exit(main())
