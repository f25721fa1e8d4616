"""The C-STORE SCP: takes radiographs from listed peers, and answers C-ECHO.

What is accepted, and how each object is answered:

    0x0000  on the disk and in the queue; also for one that was received before
    0x0122  a storage class or transfer syntax that was not agreed on
    0xA700  out of resources: the disk is full, or the node is ending. The peer should try again.
    0xA900  the data set is of another class or instance than the message says
    0xC000  the data set cannot be read, or lacks its UIDs
"""

import io
import socketserver
import sqlite3
import threading
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from pneumojax.data.files import headers
from pneumojax.errors import UsageError
from pneumojax.serving import associations, events, tls
from pneumojax.serving.health import Figures
from pneumojax.serving.inbox import TRANSFER_SYNTAXES, Inbox, Object, Refused
from pneumojax.serving.settings import Receive

_OUT_OF_RESOURCES = 0xA700
_CONNECTIONS = 2  # times the associations: those beyond are told that there are too many


class Receiver:
    """Listens until it is stopped.

    Args:
      settings: the table [receive].
      ae_title: that peers must call.
      inbox: where images go.
      figures: what is counted.

    Raises:
      UsageError: the address cannot be bound.
    """

    def __init__(self, settings: Receive, ae_title: str, inbox: Inbox, figures: Figures):
        self._settings, self._inbox, self._figures = settings, inbox, figures
        self._accepting = True
        _config.LOG_HANDLER_LEVEL = 'none'  # the library's log shows what peers send
        ae = AE(ae_title)
        ae.maximum_associations = settings.max_associations
        ae.maximum_pdu_size = associations.MAX_PDU
        ae.require_called_aet = True
        ae.require_calling_aet = [peer.ae_title for peer in settings.peer]
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = settings.timeout_seconds
        ae.add_supported_context(Verification)
        for storage in headers.STORAGE_CLASSES:
            ae.add_supported_context(storage, list(TRANSFER_SYNTAXES))
        try:
            self._server = ae.make_server(
                (settings.host, settings.port),
                ssl_context=tls.server(settings.tls),
                evt_handlers=[
                    (evt.EVT_REQUESTED, self._on_request),
                    (evt.EVT_C_STORE, self._on_store),
                    (evt.EVT_C_ECHO, self._on_echo),
                ],
                server_class=associations.bounded(
                    _CONNECTIONS * settings.max_associations,
                    settings.max_object_mb << 20,
                    settings.timeout_seconds,
                    lambda address: any(p.may_come_from(address) for p in settings.peer),
                ),
            )
        except OSError as error:
            raise UsageError(
                f'--node: cannot listen on receive.host {settings.host}, port {settings.port}: '
                f'{error.strerror}'
            ) from None
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={'poll_interval': 0.1}, daemon=True
        )

    def start(self) -> None:
        """Begins to accept."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it still accepts."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Accepts no more, and ends the associations; what was answered is in the queue."""
        self._accepting = False
        if self._thread.is_alive():
            # Not the library's own `shutdown`, which is for servers that its `AE` has started.
            socketserver.BaseServer.shutdown(self._server)
        self._server.server_close()
        for association in self._server.active_associations:
            association.abort()

    def _on_request(self, event: Any) -> None:
        """Refuses a title that comes from another peer's address; the library checks the rest."""
        primitive = event.assoc.requestor.primitive
        title, address = primitive.calling_ae_title, event.assoc.requestor.address
        if not self._is_listed(title, address):
            self._figures.count('associations_refused')
            events.problem('association refused', why='title or address not listed')
            event.assoc.acse.send_reject(0x01, 0x01, 0x03)
            event.assoc.kill()

    def _is_listed(self, title: str, address: str) -> bool:
        return any(
            peer.ae_title == title.strip() and peer.may_come_from(address)
            for peer in self._settings.peer
        )

    def _on_echo(self, event: Any) -> int:
        return 0x0000

    def _on_store(self, event: Any) -> Dataset:
        request = event.request
        data = request.DataSet or io.BytesIO()
        one = Object(
            str(event.context.transfer_syntax), str(request.AffectedSOPClassUID or ''),
            str(request.AffectedSOPInstanceUID or ''), data.getbuffer(),
        )  # fmt: skip
        try:
            if not self._accepting:
                return _status(_OUT_OF_RESOURCES, 'the node is ending')
            outcome, number = self._inbox.store(one)
        except Refused as error:
            self._figures.count('objects_refused')
            events.problem('object refused', why=str(error))
            return _status(error.status, str(error))
        except (OSError, sqlite3.OperationalError) as error:
            self._figures.count('objects_refused')
            events.problem('object not stored', why=_why(error))
            return _status(_OUT_OF_RESOURCES, 'the disk is full or cannot be written')
        finally:
            one.data.release()
        self._figures.count(f'objects_{outcome.replace(" ", "_")}')
        events.event('received', image=number, outcome=outcome)
        return _status(0x0000)


def _why(error: Exception) -> str:
    return error.strerror or '' if isinstance(error, OSError) else str(error)


def _status(code: int, comment: str = '') -> Dataset:
    status = Dataset()
    status.Status = code
    if comment:
        status.ErrorComment = comment[:64]
    return status
