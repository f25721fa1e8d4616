"""Where figures of a training run go: metrics.jsonl, and TensorBoard beside it."""

import json
from typing import Any

from tensorboardX import SummaryWriter

from pneumojax.run import Run


class MetricsLog:
    """Appends to a run's metrics.jsonl, one JSON object a line, and to tensorboard/."""

    def __init__(self, run: Run):
        self.run = run

    def __enter__(self):
        self._file = (self.run / 'metrics.jsonl').open('a')
        self._board = SummaryWriter(str(self.run / 'tensorboard'))
        return self

    def __exit__(self, *exc):
        self._file.close()
        self._board.close()

    def write(self, *, step: int, split: str, **values: Any) -> None:
        """One line. Values are finite numbers or None."""
        row = {'step': step, 'split': split, **values}
        self._file.write(json.dumps(row, allow_nan=False) + '\n')
        self._file.flush()
        for name, value in values.items():
            if value is not None:
                self._board.add_scalar(f'{split}/{name}', value, step)
