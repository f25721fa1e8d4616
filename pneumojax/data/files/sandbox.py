"""Foreign decoders in processes of their own, which may crash, hang or run out of memory alone.

GDCM aborts the whole program on some damaged JPEG streams and takes minutes over others; a folder
of ten thousand radiographs must not end with such a file. So every decoder but OpenCV's JPEG works
in a helper process with a time limit and a limit of memory. Helpers are started when first needed
and stay; each serves one caller at a time.

The two sides speak over pipes: a line of JSON, then bytes. Nothing is unpickled.
"""

import contextlib
import json
import queue
import subprocess
import threading
from typing import Any

import numpy as np

from pneumojax.system import subprocesses

SECONDS = 30.0  # that a frame may take, and so much more for each
SECONDS_PER_MEGAPIXEL = 4.0
_BYTES = 1 << 30  # of memory that a frame may take, and so much more for each
_BYTES_PER_PIXEL = 48
_START_SECONDS = 60.0  # that a helper may need for its imports, on a busy machine


class DecoderError(ValueError):
    """The frame was not decoded; the message says why in a word or two, and quotes nothing."""


def decode(frame: bytes, tags: dict[str, Any]) -> np.ndarray:
    """Decodes one frame in a helper process.

    Args:
      frame: compressed bytes.
      tags: of the image: 'TransferSyntaxUID', 'Rows', 'Columns', 'BitsAllocated', 'BitsStored',
        'PixelRepresentation', and 'Plugin', the name of pydicom's decoder plugin.

    Returns:
      An integer array [Rows, Columns].

    Raises:
      DecoderError: the decoder refuses, crashes, takes too long or too much memory.
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
    def __init__(self):
        self._process = subprocesses.start(
            'pneumojax.data.files.sandbox_process',
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._ready = False

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def decode(self, frame: bytes, tags: dict[str, Any]) -> np.ndarray:
        pixels = tags['Rows'] * tags['Columns']
        seconds = SECONDS + SECONDS_PER_MEGAPIXEL * pixels / 1e6
        if not self._ready:
            seconds += _START_SECONDS
        request = {**tags, 'bytes': len(frame), 'memory': _BYTES + _BYTES_PER_PIXEL * pixels}
        late = threading.Event()

        def stop():
            late.set()
            self._process.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            answer, content = self._exchange(request, frame)
        except (OSError, ValueError):  # a pipe that broke, or half an answer
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

    def _exchange(self, request, frame):
        to, back = self._process.stdin, self._process.stdout
        assert to is not None  # pipes
        assert back is not None
        to.write(json.dumps(request).encode() + b'\n')
        to.write(frame)
        to.flush()
        answer = json.loads(back.readline())
        content = back.read(answer['bytes'])
        if len(content) != answer['bytes']:
            raise ValueError('half an answer')
        return answer, content


_idle: queue.SimpleQueue = queue.SimpleQueue()


def _take() -> _Helper:
    """An idle helper, or a new one: there are as many as callers at once."""
    with contextlib.suppress(queue.Empty):
        while True:
            helper = _idle.get_nowait()
            if helper.alive:
                return helper
    return _Helper()
