"""pynetdicom's server, bounded in what a peer can make it do.

The library trusts its peers: it reads a PDU of any length that one announces, collects a data set
of any size, queues any number of messages, waits in its only accepting thread for a TLS handshake,
and drops a connection only after it has started two threads for it. Here each of these has a limit.
"""

import contextlib
import functools
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.transport import (
    AssociationSocket,
    RequestHandler,
    ThreadedAssociationServer,
)

from pneumojax.serving import events

MAX_PDU = 1 << 18  # bytes, which peers are told
_SLACK = 1 << 12  # bytes of a PDU beside its data; an association request is shorter
_COMMAND_BYTES = 1 << 16  # of a command set; real ones have some hundred bytes
_MESSAGES = 4  # that may wait for an answer


class BoundedServer(ThreadedAssociationServer):
    """A server whose connections, PDUs and data sets are limited."""

    # Given by `bounded`.
    max_connections: int
    max_object_bytes: int
    seconds: float
    may_connect: Callable[[str], bool]

    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(self, *args: Any, **kwargs: Any):
        self._handshakes, self._counting = 0, threading.Lock()
        super().__init__(*args, **(kwargs | {'request_handler': _Handler}))

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accepts a connection; TLS begins in the connection's own thread."""
        assert self.socket is not None
        connection, address = self.socket.accept()
        connection.settimeout(self.seconds)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether to talk to a peer at all."""
        if not self.may_connect(client_address[0]):
            events.problem('connection refused', why='address not listed')
            return False
        with self._counting:
            if len(self.active_associations) + self._handshakes >= self.max_connections:
                events.problem('connection refused', why='too many connections')
                return False
            self._handshakes += 1
        return True

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Speaks TLS where it is set, then hands the connection to an association."""
        try:
            if self.ssl_context:
                request = _handshake(self.ssl_context, request, self.seconds)
            super().process_request_thread(request, client_address)
        except (OSError, ssl.SSLError) as error:
            events.problem('connection refused', why='no TLS', error=type(error).__name__)
            with contextlib.suppress(OSError):
                request.close()
        finally:
            with self._counting:
                self._handshakes -= 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs instead of printing a traceback."""
        events.problem('connection failed')


def bounded(
    max_connections: int, max_object_bytes: int, seconds: float, may_connect: Callable[[str], bool]
) -> type[BoundedServer]:
    """The server's class with its limits, as pynetdicom makes the instance.

    Args:
      max_connections: at a time, from every peer together.
      max_object_bytes: of one data set.
      seconds: for the TLS handshake, and for every PDU from its first byte to its last.
      may_connect: whether an address is listed.
    """
    limits = {
        'max_connections': max_connections, 'max_object_bytes': max_object_bytes,
        'seconds': seconds, 'may_connect': staticmethod(may_connect),
    }  # fmt: skip
    return type('LimitedServer', (BoundedServer,), limits)


class _Handler(RequestHandler):
    def _create_association(self) -> Association:
        association = super()._create_association()
        server: Any = self.server
        association.dimse = _Messages(association, server.max_object_bytes)
        dul: Any = association.dul
        dul.run = functools.partial(_run, dul)
        dul.socket.recv = functools.partial(_receive, dul.socket, server.seconds)
        return association


def _run(dul: DULServiceProvider) -> None:
    """Runs the thread of a connection, then wakes the association's, which waits for a request.

    Otherwise that would wait for the whole timeout after its peer is gone.
    """
    try:
        threading.Thread.run(dul)
    finally:
        dul.to_user_queue.put(None)  # type: ignore[arg-type]  # as if the time were over


def _receive(association_socket: AssociationSocket, seconds: float, nr_bytes: int) -> bytearray:
    """In place of `AssociationSocket.recv`: refuses a PDU that is too long or comes too slowly."""
    if nr_bytes > MAX_PDU + _SLACK:
        raise OSError('the PDU is longer than allowed')
    connection = association_socket.socket
    assert connection is not None
    received, deadline = bytearray(), time.monotonic() + seconds
    while len(received) < nr_bytes:
        piece = connection.recv(min(nr_bytes - len(received), 1 << 16))
        if not piece:
            break
        received += piece
        if len(received) < nr_bytes and time.monotonic() > deadline:
            raise TimeoutError
    return received


class _Messages(DIMSEServiceProvider):
    """Collects messages up to a size and a number; anything beyond ends the association."""

    def __init__(self, association: Association, max_object_bytes: int):
        super().__init__(association)
        self._max_object_bytes = max_object_bytes

    def receive_primitive(self, primitive: Any) -> None:
        collected = self.message
        if collected is not None and (
            collected.encoded_command_set.tell() > _COMMAND_BYTES
            or collected.data_set.tell() > self._max_object_bytes  # type: ignore[union-attr]
        ):
            self._end('object too large')
            return
        if self.msg_queue.qsize() > _MESSAGES:
            self._end('too many messages at once')
            return
        try:
            super().receive_primitive(primitive)
        except Exception as error:  # a malformed message: the library would let its thread die
            self._end(f'malformed message ({type(error).__name__})')

    def _end(self, why: str) -> None:
        events.problem('association aborted', why=why)
        self.message = None
        self.dul.event_queue.put('Evt19')  # an invalid PDU: the library aborts


def _handshake(context: ssl.SSLContext, connection: socket.socket, seconds: float) -> ssl.SSLSocket:
    secured = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)

    # The socket's timeout holds for each read; this ends a handshake that is slow as a whole.
    def cut() -> None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(secured, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        secured.do_handshake()
    except OSError:
        secured.close()
        raise
    finally:
        timer.cancel()
    return secured
