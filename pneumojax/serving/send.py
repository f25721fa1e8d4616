"""Sends results to one destination, by C-STORE or STOW-RS, until it has confirmed each.

A destination that cannot be reached, is full or refuses to talk at all costs no result its
attempts: sending is tried again, after 1, 2, 4 ... 60 seconds. Only a result that the destination
looked at and refused is counted, and dead when that has happened too often.
"""

import pathlib
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import pydicom
from pydicom import uid
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from pneumojax.serving import dicomweb, events, tls
from pneumojax.serving.health import Figures
from pneumojax.serving.queue import Delivery, Queue
from pneumojax.serving.settings import Send

_NATIVE = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian)
_CONFIRMED = (0x0000, 0x0107, 0x0111, 0x0116)  # 0x0111: the archive has it already
_LONGEST_WAIT = 60.0  # seconds until an unreachable destination is tried again


class Unreachable(Exception):
    """The destination cannot take anything now; the message says why."""


class RefusedResult(Exception):
    """The destination refuses this result; the message says how."""


class Sender:
    """Sends what is due to one destination.

    Args:
      settings: a table [[send]].
      ae_title: of this node.
      queue: of deliveries.
      results: folder of the files.
      figures: what is counted.
      is_ending: whether to stop after the file at hand.
    """

    def __init__(
        self,
        settings: Send,
        ae_title: str,
        queue: Queue,
        results: pathlib.Path,
        figures: Figures,
        is_ending: Callable[[], bool],
    ):
        self._settings, self._queue, self._results = settings, queue, results
        self._figures, self._is_ending = figures, is_ending
        self._failures, self._not_before = 0, 0.0
        self._connect: Callable[
            [Sequence[pathlib.Path]], AbstractContextManager[Callable[[pathlib.Path], None]]
        ]
        if settings.url:
            self._connect = _Stow(settings).connect
        else:
            self._connect = _Store(settings, ae_title).connect

    @property
    def is_reachable(self) -> bool:
        """Whether the last attempt reached the destination."""
        return not self._failures

    def step(self) -> bool:
        """Sends results that are due; returns whether there were any."""
        if time.monotonic() < self._not_before:
            return False
        deliveries = self._queue.due_deliveries(self._settings.name)
        if not deliveries:
            return False
        there = [d for d in deliveries if (self._results / d.file).is_file()]
        for delivery in deliveries:
            if delivery not in there:
                self._refused(delivery, 'its file is gone')
        if not there:
            return True
        try:
            with self._connect([self._results / d.file for d in there]) as send:
                for delivery in there:
                    if self._is_ending():
                        break
                    self._deliver(delivery, send)
            self._failures = 0
        except Unreachable as error:
            self._figures.count('sending_failed')
            wait = min(_LONGEST_WAIT, 2.0**self._failures)
            self._failures = min(self._failures + 1, 20)
            self._not_before = time.monotonic() + wait
            events.problem('not reachable', destination=self._settings.name, why=str(error))
        return True

    def _deliver(self, delivery: Delivery, send: Callable[[pathlib.Path], None]) -> None:
        try:
            send(self._results / delivery.file)
        except Unreachable:
            raise
        except RefusedResult as refusal:
            self._refused(delivery, str(refusal))
            return
        except Exception as error:  # one result must not keep back the others
            self._refused(delivery, type(error).__name__)
            return
        self._queue.sent(delivery)
        seconds = max(0.0, time.time() - delivery.received)
        self._figures.count('results_sent')
        self._figures.observe(seconds)
        about = {'image': delivery.image, 'destination': self._settings.name}
        events.event('sent', **about, seconds=round(seconds, 3))

    def _refused(self, delivery: Delivery, reason: str) -> None:
        self._figures.count('sending_failed')
        is_dead = self._queue.refused(delivery, reason, self._settings.tries)
        events.problem(
            'dead letter' if is_dead else 'result refused', image=delivery.image,
            destination=self._settings.name, tries=delivery.tries + 1, why=reason,
        )  # fmt: skip


class _Store:
    """By C-STORE; one association for several files."""

    def __init__(self, settings: Send, ae_title: str):
        self._settings = settings
        self._ae = AE(ae_title)
        seconds = settings.timeout_seconds
        self._ae.acse_timeout = self._ae.dimse_timeout = self._ae.network_timeout = seconds
        self._ae.connection_timeout = seconds
        context = tls.client(settings.tls)
        self._tls: tuple[ssl.SSLContext, str] | None = (context, settings.host) if context else None

    @contextmanager
    def connect(self, files: Sequence[pathlib.Path]) -> Iterator[Callable[[pathlib.Path], None]]:
        """Yields what sends one of the files. Raises Unreachable, at any time."""
        association = self._associate(files)
        try:
            yield lambda path: _store(association, path)
        finally:
            if association.is_established:
                association.release()

    def _associate(self, files: Sequence[pathlib.Path]) -> Association:
        kinds = set()
        for path in files:
            meta = pydicom.filereader.read_file_meta_info(path)
            kinds.add((meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID))
        # Each transfer syntax in a context of its own: the archive takes one of each context's.
        contexts = [build_context(one, [syntax]) for one, syntax in sorted(kinds)]
        contexts += [
            build_context(one, [native])
            for one in sorted({one for one, _ in kinds})
            for native in _NATIVE
            if (one, native) not in kinds
        ]
        settings = self._settings
        association = self._ae.associate(
            settings.host, settings.port, contexts, settings.ae_title,
            tls_args=self._tls,  # type: ignore[arg-type]
        )  # fmt: skip
        if association.is_established:
            return association
        if association.is_rejected:
            raise Unreachable('the association was rejected; are the AE titles right?')
        raise Unreachable('no connection, or it was aborted')


def _store(association: Association, path: pathlib.Path) -> None:
    dataset = pydicom.dcmread(path)
    accepted = {
        context.transfer_syntax[0]
        for context in association.accepted_contexts
        if context.abstract_syntax == dataset.SOPClassUID
    }
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax not in accepted:
        if not accepted.intersection(_NATIVE):
            raise RefusedResult('the storage class was not accepted')
        if syntax.is_deflated:
            dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        elif syntax.is_compressed:
            dataset.decompress(generate_instance_uid=False)
    try:
        status = association.send_c_store(dataset)
    except RuntimeError:  # the association ended in the meantime
        raise Unreachable('the association was aborted') from None
    if 'Status' not in status:
        raise Unreachable('no answer to a C-STORE')
    code = status.Status
    if code in _CONFIRMED or code >> 12 == 0xB:  # stored, perhaps with a warning
        return
    if code >> 8 == 0xA7:
        raise Unreachable('out of resources (0xA7..)')
    raise RefusedResult(f'C-STORE status 0x{code:04X}')


class _Stow:
    """By STOW-RS; one request for each file."""

    def __init__(self, settings: Send):
        self._archive = dicomweb.Archive(
            settings.url, settings.login, settings.tls, settings.timeout_seconds
        )

    @contextmanager
    def connect(self, files: Sequence[pathlib.Path]) -> Iterator[Callable[[pathlib.Path], None]]:
        """As of `_Store`."""
        yield self._send

    def _send(self, path: pathlib.Path) -> None:
        try:
            self._archive.store(path)
        except dicomweb.Failed as error:
            # 401, 403, 404, 429 and 5xx are about the server or the settings, not the result.
            if error.status is None or error.status in (401, 403, 404, 408, 429):
                raise Unreachable(str(error)) from None
            if error.status >= 500:
                raise Unreachable(str(error)) from None
            raise RefusedResult(str(error)) from None
