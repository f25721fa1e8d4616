"""The short version of `tests.fuzz.associations`, against a receiver in this process."""

import socket
import threading

import pytest

from tests.fuzz.associations import Peer, strangers
from tests.waiting import wait_for


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')  # of the attacker's own libraries
def test_a_few_dozen_hostile_peers(receiver, inbox, tmp_path, capfd):
    one = receiver(timeout_seconds=2.0)
    before = {p for p in tmp_path.rglob('*') if inbox.folder not in p.parents}
    peer = Peer(one.port, 2026)
    kinds = {peer.attack() for _ in range(60)}
    assert len(kinds) == 4
    wait_for(peer.echo)
    assert one.is_alive
    after = {p for p in tmp_path.rglob('*') if inbox.folder not in p.parents}
    assert {p.name for p in after - before} <= {'queue.sqlite-wal', 'queue.sqlite-shm'}
    assert not strangers(tmp_path)
    written = ''.join(capfd.readouterr())
    assert 'Traceback' not in written
    assert 'zzname' not in written.lower()


def test_whoever_is_gone_holds_no_thread(receiver):
    """Not even until the timeout is over, which is a day here."""
    one = receiver(timeout_seconds=86400.0)
    for _ in range(40):
        with socket.create_connection(('127.0.0.1', one.port)) as connection:
            connection.sendall(b'GET / HTTP/1.1')
    wait_for(lambda: not [t for t in threading.enumerate() if 'AcceptorThread' in t.name])
    with socket.create_connection(('127.0.0.1', one.port)):
        assert Peer(one.port, 1).echo()
