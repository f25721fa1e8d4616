"""One or several trained runs as one network: probabilities of squares, averaged over the runs."""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from pneumojax.data import geometry
from pneumojax.errors import UsageError
from pneumojax.evaluation.rules import Rule
from pneumojax.prediction import borderline
from pneumojax.runs import layout
from pneumojax.runs.run import Run
from pneumojax.runtimes import exported, member, runtimes
from pneumojax.system.progress import log

Squares = dict[int, np.ndarray]  # side -> [side, side]


class Judged(NamedTuple):
    """A run directory: how it was judged, and the networks that predict together."""

    rule: Rule
    evaluation: dict[str, Any] | None  # content of evaluation.json
    members: Sequence[member.Member]


class Ensemble:
    """Runs that predict together.

    Args:
      runs: evaluated run directories, with folds or stages or plain, or folders of exported
        networks; the rule that makes masks is the first one's. The folds of a k-fold training are
        averaged.
      runtime: what computes, see `runtimes.choose`.
      precision: see `runtimes.choose`.
      images: how many there are to predict, if that is known: batches are no larger.

    Raises:
      UsageError: a run that is not trained, not evaluated, or trained on since; or a runtime that
        is not to be had.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        runtime: str = 'auto',
        precision: str = 'auto',
        images: int | None = None,
    ):
        if not runs:
            raise UsageError('--workdir: name at least one trained run')
        choice = runtimes.choose(runtime, precision)
        judged = [_judged(run) for run in runs]
        self.members = [m for one in judged for m in one.members]
        self.rule, self.evaluation, _ = judged[0]
        if len({dataclasses.astuple(one.rule) for one in judged}) > 1:
            log.info('the runs have different thresholds; those of %s are used', runs[0].path)
        self.batch_size = self.members[0].batch_size
        self._exact: _Lazily | None = None
        if images is not None:
            self.batch_size = max(1, min(self.batch_size, images))
        if choice.name == 'jax':
            self._use_jax(choice.precision)
            return
        try:
            self._use_processor(choice)
        except exported.CannotExport as error:
            if choice.named:
                raise
            log.info('%s; predicting with JAX', error)
            self._use_jax(choice.precision)

    def _use_jax(self, precision):
        from pneumojax.runtimes.jax_runtime import Jax  # late: JAX takes a second to import

        runtime = Jax(precision)
        self.batch_size = runtime.batch_size(self.batch_size)
        self._networks = [runtime.network(m) for m in self.members]
        self.runtime = {'name': runtime.name, 'precision': runtime.precision}

    def _use_processor(self, choice):
        from pneumojax.runtimes import cpu_runtimes, export_cache

        if choice.name == 'openvino':
            runtime = cpu_runtimes.OpenVINO(choice.precision)
        else:
            runtime = cpu_runtimes.OnnxRuntime()
        models = [(export_cache.model_of(m), m.image_size) for m in self.members]
        self._networks = [runtime.network(*model) for model in models]
        if runtime.precision == 'mixed':
            exact = cpu_runtimes.OpenVINO('float32')
            self._exact = _Lazily(lambda: [exact.network(*model) for model in models])
        self.runtime = {'name': runtime.name, 'precision': runtime.precision}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the squares that `squares` wants, each once, in the members' order."""
        return tuple(dict.fromkeys(m.image_size for m in self.members))

    @property
    def identity(self) -> list[dict[str, Any]]:
        """JSON: which weights predict."""
        return [m.identity for m in self.members]

    def predict(self, batch: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        """Mean probabilities over the members of each size.

        Args:
          batch: side -> uint8 [B, side, side], for each of `sizes`; B is at most `batch_size`.

        Returns:
          side -> float32 [B, side, side].
        """
        return self._predict(self._networks, batch)

    def _predict(self, networks, batch):
        # All members are started before the first result is waited for.
        started = [
            (m.image_size, network(batch[m.image_size]))
            for m, network in zip(self.members, networks, strict=True)
        ]
        sums: dict[int, np.ndarray] = {}
        for size, result in started:
            squares = result()
            sums[size] = sums[size] + squares if size in sums else squares
        return {size: total / np.float32(self.share(size)[0]) for size, total in sums.items()}

    def probability(
        self, images: Squares, predicted: Squares, shape: tuple[int, int], aspect: float
    ) -> tuple[np.ndarray, bool]:
        """Probabilities of one image at its original size, to make its mask of.

        Where precision is mixed and the mask hangs on rounding, the image is predicted again in
        float32. Any thread may call this.

        Args:
          images: side -> uint8 [side, side], what was predicted.
          predicted: side -> float32 [side, side], what `predict` said.
          shape, aspect: see `unfit`.

        Returns:
          (float32 [H, W], whether it was predicted again).
        """
        whole = self.unfit(predicted, shape, aspect)
        if self._exact is None or not borderline.hangs_on_rounding(self.rule, whole):
            return whole, False
        batch = {size: image[None] for size, image in images.items()}
        again = self._predict(self._exact(), batch)
        return self.unfit({size: p[0] for size, p in again.items()}, shape, aspect), True

    def share(self, size: int) -> tuple[int, int]:
        """(members of that size, members)."""
        return sum(m.image_size == size for m in self.members), len(self.members)

    def unfit(self, squares: Squares, shape: tuple[int, int], aspect: float):
        """Probabilities of one image at its original size, averaged over all members.

        Args:
          squares: side -> float32 [side, side].
          shape: (H, W) of the original.
          aspect: height of one of its pixels over its width.

        Returns:
          float32 [H, W].
        """
        result = None
        for size, square in squares.items():
            part, all_members = self.share(size)
            whole = geometry.unfit(square, shape, aspect)
            if part != all_members:
                whole = whole * np.float32(part / all_members)
            result = whole if result is None else result + whole
        return result


class _Lazily:
    """What a function returns, called when it is first wanted, once, by whichever thread."""

    def __init__(self, make: Callable[[], list[runtimes.Network]]):
        self._make, self._lock = make, threading.Lock()
        self._made: list[runtimes.Network] | None = None

    def __call__(self) -> list[runtimes.Network]:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made


def _judged(run: Run) -> Judged:
    if exported.is_export(run.path):
        one = member.of_export(run.path)
        assert one.rule is not None  # it refuses an export without one
        return Judged(one.rule, one.evaluation, [one])
    whole, trained = layout.predicting(run)
    evaluation = member.read_evaluation(whole)
    return Judged(member.read_rule(whole), evaluation, [member.of_run(part) for part in trained])
