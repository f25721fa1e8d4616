"""Where the figures of a training run go: metrics.jsonl, and TensorBoard beside it."""

import json
import time
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import scalar

from pneumojax.runs.run import Run
from pneumojax.system import atomic, processes


class MetricsLog:
    """Appends to a run's metrics.jsonl, one JSON object a line, and to tensorboard/.

    A context manager. Only process 0 writes. TensorBoard's files are written without
    `SummaryWriter`: on a full disk its thread dies, and the next call never returns.
    """

    def __init__(self, run: Run):
        self.run = run

    def __enter__(self) -> 'MetricsLog':
        if processes.is_main():
            self._path = self.run / 'metrics.jsonl'
            self._file = self._path.open('a')
            (self.run / 'tensorboard').mkdir(exist_ok=True)
            self._board = EventsWriter(str(self.run / 'tensorboard' / 'events'))
        return self

    def __exit__(self, *error: object) -> None:
        if processes.is_main():
            with atomic.naming(self._path):
                self._file.close()
            with atomic.naming(self.run / 'tensorboard'):
                self._board.close()

    def write(self, *, step: int, split: str, **values: Any) -> None:
        """Writes one line. Values are finite numbers or None."""
        if not processes.is_main():
            return
        row = {'step': step, 'split': split, **values}
        with atomic.naming(self._path):
            self._file.write(json.dumps(row, allow_nan=False) + '\n')
            self._file.flush()
        with atomic.naming(self.run / 'tensorboard'):
            for name, value in values.items():
                if value is not None:
                    self._add(step, scalar(f'{split}/{name}', value))
            self._board.flush()

    def write_pictures(self, step: int, pictures: Sequence[np.ndarray]) -> None:
        """Shows pictures, uint8 RGB [H, W, 3], in TensorBoard. Their tags are numbers, no names."""
        with atomic.naming(self.run / 'tensorboard'):
            for number, picture in enumerate(pictures, 1):
                _, code = cv2.imencode('.jpg', cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
                height, width, channels = picture.shape
                image = Summary.Image(
                    height=height, width=width, colorspace=channels,
                    encoded_image_string=code.tobytes(),
                )  # fmt: skip
                value = Summary.Value(tag=f'validation/image {number}', image=image)
                self._add(step, Summary(value=[value]))
            self._board.flush()

    def _add(self, step: int, summary: Summary) -> None:
        self._board.write_event(Event(wall_time=time.time(), step=step, summary=summary))
