"""A DICOMweb archive: asked for studies (QIDO-RS), for files (WADO-RS), and given files (STOW-RS).

Answers are bounded in size and time. Nothing of the environment is used, such as a proxy or a
`.netrc` that would log in with another password. Errors name no address below the archive's own,
as those hold UIDs.
"""

import contextlib
import email.message
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import pydicom
import requests
from dicomweb_client import DICOMwebClient

from pneumojax.serving.settings import Login, Tls

_ANSWER_BYTES = 1 << 26  # of a list of studies, series or instances
_LIMITED = 100  # entries: a shorter answer is not one that the archive has limited
_SLOWEST = 10  # times the timeout, for a whole answer
_DUPLICATE = 0x0111  # a failure reason: the archive has the instance already


class Failed(Exception):
    """The archive did not do what it was asked; the message says why and names nobody.

    Args:
      reason: why.
      status: of HTTP, or None if there was no answer. 409 stands for a result that was refused.
    """

    def __init__(self, reason: str, status: int | None = None):
        super().__init__(reason)
        self.status = status


class TooLarge(Failed):
    """An answer that was cut."""


class Archive:
    """A connection to one archive, for one thread.

    Args:
      url: of its DICOMweb root.
      login: how to log in, if that is needed.
      tls: files of certificates; by default the system's authorities are trusted.
      seconds: until it counts as not answering.

    Raises:
      UsageError: a secret or certificate cannot be read.
    """

    def __init__(self, url: str, login: Login | None, tls: Tls | None, seconds: float):
        self._url, self._seconds = url.rstrip('/'), seconds
        self._session = _BoundedSession(seconds)
        if login and login.user:
            self._session.auth = (login.user, login.secret())
        elif login:
            self._session.auth = _Bearer(login.secret())
        if tls and tls.ca:
            self._session.verify = str(tls.ca)
        if tls and tls.certificate:
            self._session.cert = (str(tls.certificate), str(tls.key))
        self._client = DICOMwebClient(self._url, self._session, timeout=seconds)
        self._client.set_http_retry_params(retry=False)  # the queue tries again

    def studies(self, modality: str, since: str) -> dict[str, int]:
        """Study Instance UID -> number of instances, -1 where the archive does not say.

        Args:
          modality: of a series in the study, such as 'CR'.
          since: date of the study, YYYYMMDD, and later.
        """
        fields = ['NumberOfStudyRelatedInstances']
        wanted = {'ModalitiesInStudy': modality, 'StudyDate': f'{since}-'}
        found = {}
        for entry in self._all(
            lambda **page: self._client.search_for_studies(
                fields=fields, search_filters=wanted, **page
            )
        ):
            number = _value(entry, '00201208')
            found[str(_value(entry, '0020000D'))] = int(number) if number is not None else -1
        return found

    def instances(self, study: str, modality: str) -> list[tuple[str, str, str]]:
        """(series, SOP class, SOP instance) UIDs of the images of one modality in a study.

        The class is empty where the archive does not say.
        """
        found = []
        series = self._all(
            lambda **page: self._client.search_for_series(
                study, search_filters={'Modality': modality}, **page
            )
        )
        for one in [str(_value(entry, '0020000E')) for entry in series]:
            for entry in self._all(
                lambda one=one, **page: self._client.search_for_instances(study, one, **page)
            ):
                sop_class = str(_value(entry, '00080016') or '')
                found.append((one, sop_class, str(_value(entry, '00080018'))))
        return found

    def fetch(self, study: str, series: str, instance: str, limit: int) -> bytes:
        """An instance as a DICOM file, as the archive stores it.

        Args:
          study, series, instance: its UIDs.
          limit: most bytes that are taken.
        """
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        path = f'/studies/{study}/series/{series}/instances/{instance}'
        with _named_errors(), self._session.limited(limit):
            answer = self._session.get(
                self._url + path, headers={'Accept': accept}, timeout=self._seconds
            )
            answer.raise_for_status()
        return _only_part(answer)

    def store(self, path: pathlib.Path) -> None:
        """Hands a DICOM file to the archive, which confirms it."""
        dataset = pydicom.dcmread(path)
        with _named_errors():
            try:
                answer = self._client.store_instances([dataset])
            except requests.HTTPError as error:
                if error.response is None or error.response.status_code != 409:
                    raise
                answer = pydicom.Dataset.from_json(error.response.content)  # which says why
            failed = [item.get('FailureReason') for item in answer.get('FailedSOPSequence') or ()]
            stored = answer.get('ReferencedSOPSequence') or ()
            names = [str(item.get('ReferencedSOPInstanceUID')) for item in stored]
        for reason in failed:
            if reason != _DUPLICATE:
                raise Failed(f'STOW-RS failure reason 0x{int(reason or 0):04X}', 409)
        # An answer alone is no confirmation: it may be of a proxy, or a page to log in.
        if not failed and dataset.SOPInstanceUID not in names:
            raise Failed('the answer to STOW-RS does not say that the result is stored', 409)

    def _all(self, search: Any) -> list[dict]:
        """What a search finds, in several answers where the archive limits them.

        No limit is asked for: with one, and `ModalitiesInStudy`, Orthanc's plugin (1.7) answers
        with nothing from the second page on.
        """
        with _named_errors():
            found = search()
            while len(found) >= _LIMITED:
                more = [entry for entry in search(offset=len(found)) if entry not in found]
                if not more:
                    break
                found += more
        return found


class _Bearer(requests.auth.AuthBase):
    def __init__(self, token: str):
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers['Authorization'] = f'Bearer {self._token}'
        return request


class _BoundedSession(requests.Session):
    """Takes no more of an answer than allowed, in bytes and in seconds."""

    def __init__(self, seconds: float):
        super().__init__()
        self._seconds, self._limit = seconds, _ANSWER_BYTES
        self.trust_env = False

    @contextlib.contextmanager
    def limited(self, limit: int) -> Iterator[None]:
        """Inside the block, answers may have another size."""
        self._limit = limit
        try:
            yield
        finally:
            self._limit = _ANSWER_BYTES

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        options |= {'stream': True, 'allow_redirects': False}
        answer = super().send(request, **options)
        if 300 <= answer.status_code < 400:
            raise Failed(f'HTTP status {answer.status_code}: is the url right?')
        content, deadline = bytearray(), time.monotonic() + _SLOWEST * self._seconds
        for piece in answer.iter_content(1 << 16):
            content += piece
            if len(content) > self._limit or time.monotonic() > deadline:
                answer.close()
                raise TooLarge('the answer is too large or too slow')
        answer._content = bytes(content)
        return answer


@contextlib.contextmanager
def _named_errors() -> Iterator[None]:
    """Turns errors of the libraries into `Failed`: their messages quote addresses with UIDs."""
    try:
        yield
    except Failed:
        raise
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else None
        raise Failed(f'HTTP status {status}', status) from None
    except Exception as error:
        raise Failed(f'no usable answer ({type(error).__name__})') from None


def _only_part(answer: requests.Response) -> bytes:
    """The file in a multipart answer that should hold exactly one."""
    header = email.message.Message()
    header['Content-Type'] = answer.headers.get('Content-Type', '')
    if header.get_content_type() == 'application/dicom':
        return answer.content
    boundary = header.get_boundary()
    if header.get_content_type() != 'multipart/related' or not boundary:
        raise Failed('the answer holds no DICOM file')
    mark = b'--' + boundary.encode('latin-1', 'replace')
    start = answer.content.find(mark)
    begin = answer.content.find(b'\r\n\r\n', start)
    # The last mark: the file itself may hold the same bytes.
    end = answer.content.rfind(b'\r\n' + mark)
    if start < 0 or begin < 0 or end <= begin:
        raise Failed('the answer holds no DICOM file')
    return answer.content[begin + 4 : end]


def _value(entry: dict, tag: str) -> Any:
    """The first value of a tag in DICOM JSON; None without one."""
    try:
        return entry[tag]['Value'][0]
    except (KeyError, IndexError, TypeError):
        return None
