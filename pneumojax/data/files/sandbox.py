"""Runs third-party decoders in helper processes, so that only those crash, hang or use up memory.

GDCM aborts the whole program on some damaged JPEG streams and takes minutes over others; one such
file must not end the prediction of a folder. So every decoder but libjpeg-turbo runs in a helper
process with limits of time and memory. Helpers are started when first needed and are reused; each
serves one caller at a time.

Both sides exchange a line of JSON and then bytes over pipes; nothing is unpickled.
"""

import contextlib
import json
import queue
import subprocess
import threading
from typing import Any

import numpy as np

from pneumojax.system import subprocesses

# Limits for one frame
SECONDS = 30.0
SECONDS_PER_MEGAPIXEL = 4.0  # more
_BYTES = 1 << 30  # of memory
_BYTES_PER_PIXEL = 48  # more
_START_SECONDS = 60.0  # for the imports of a helper, on a busy machine


class DecoderError(ValueError):
    """The frame was not decoded; the message is a short reason that never quotes the file."""


def decode(frame: bytes, tags: dict[str, Any]) -> np.ndarray:
    """Decodes one frame in a helper process.

    Args:
      frame: compressed bytes.
      tags: 'TransferSyntaxUID', 'Rows', 'Columns', 'BitsAllocated', 'BitsStored' and
        'PixelRepresentation' of the image, and 'Plugin', the name of pydicom's decoder plugin; for
        colour also 'SamplesPerPixel', 'PhotometricInterpretation' and 'PlanarConfiguration'. For
        `pillow_decoder` only 'Rows', 'Columns' and 'Kind'.

    Returns:
      An integer array [Rows, Columns], or [Rows, Columns, SamplesPerPixel] for several samples.
      Bits above those stored may be set.

    Raises:
      DecoderError: the decoder fails, crashes, or takes too much time or memory.
    """
    helper = _take()
    try:
        pixels = helper.decode(frame, tags)
    except BaseException:
        if helper.alive:
            _idle.put(helper)
        raise
    _idle.put(helper)
    return pixels


class _Helper:
    def __init__(self) -> None:
        self._process = subprocesses.start(
            'pneumojax.data.files.sandbox_process',
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._ready = False

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def decode(self, frame: bytes, tags: dict[str, Any]) -> np.ndarray:
        pixels = tags['Rows'] * tags['Columns'] * tags.get('SamplesPerPixel', 1)
        seconds = SECONDS + SECONDS_PER_MEGAPIXEL * pixels / 1e6
        if not self._ready:
            seconds += _START_SECONDS
        request = {**tags, 'bytes': len(frame), 'memory': _BYTES + _BYTES_PER_PIXEL * pixels}
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            answer, content = self._exchange(request, frame)
        except (OSError, ValueError):  # a broken pipe, or an incomplete answer
            self._process.kill()
            self._process.wait()
            why = f'takes more than {seconds:.0f} s' if late.is_set() else 'crashed'
            raise DecoderError(why) from None
        finally:
            timer.cancel()
        self._ready = True
        if 'error' in answer:
            raise DecoderError(answer['error'])
        return np.frombuffer(content, answer['dtype']).reshape(answer['shape'])

    def _exchange(self, request: dict[str, Any], frame: bytes) -> tuple[dict[str, Any], bytes]:
        to, back = self._process.stdin, self._process.stdout
        assert to is not None  # pipes
        assert back is not None
        to.write(json.dumps(request).encode() + b'\n')
        to.write(frame)
        to.flush()
        answer = json.loads(back.readline())
        content = back.read(answer['bytes'])
        if len(content) != answer['bytes']:
            raise ValueError('incomplete answer')
        return answer, content


_idle: queue.SimpleQueue[_Helper] = queue.SimpleQueue()


def _take() -> _Helper:
    """An idle helper or a new one, so there are as many as simultaneous callers."""
    with contextlib.suppress(queue.Empty):
        while True:
            helper = _idle.get_nowait()
            if helper.alive:
                return helper
    return _Helper()
