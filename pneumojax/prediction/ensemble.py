"""Several trained runs as one network, whose probabilities are averaged."""

import dataclasses
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from pneumojax.data import geometry
from pneumojax.errors import UsageError
from pneumojax.evaluation.image_probability import Calibration
from pneumojax.evaluation.rules import Rule
from pneumojax.prediction import borderline
from pneumojax.runs import layout
from pneumojax.runs.run import Run
from pneumojax.runtimes import choose, ensemble_member, exported, pretrained_folder
from pneumojax.runtimes.ensemble_member import Member
from pneumojax.system.progress import log

Squares = dict[int, np.ndarray]  # side -> [side, side]


class EvaluatedRun(NamedTuple):
    """A run directory: its evaluation, and its networks, which predict together."""

    rule: Rule
    calibration: Calibration | None
    evaluation: dict[str, Any] | None  # content of evaluation.json
    members: Sequence[Member]


class Ensemble:
    """Runs that predict together.

    Args:
      runs: evaluated run directories, plain or with folds or stages, or folders of exported
        networks or in Hugging Face's layout. The first one's rule makes the masks, and its
        calibration the image probabilities. Folds are averaged.
      runtime: what computes, see `runtimes.choose`.
      precision: see `runtimes.choose`.
      images: how many there are to predict, if known: batches are no larger.

    Raises:
      UsageError: a run is not trained, not evaluated, or was trained further since; or the runtime
        is not available.
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
        choice = choose.choose(runtime, precision)
        evaluated = [_read_run(run) for run in runs]
        self.members = [member for one in evaluated for member in one.members]
        self.rule, self.calibration, self.evaluation, _ = evaluated[0]
        if len({(one.rule, one.calibration) for one in evaluated}) > 1:
            log.info(
                'the runs have different thresholds or calibrations; using those of %s',
                runs[0].path,
            )
        if self.calibration is None:
            log.warning(
                '%s holds no calibration of image probabilities, so they are raw scores; if an '
                'earlier version evaluated it, run --mode=evaluate again',
                runs[0].path,
            )
        if self.rule.marks_nothing:
            log.warning(
                'every mask will be empty: when %s was evaluated, no rule was better than that; '
                'evaluate it with --config.evaluation.rule=half to mark every pixel from 0.5',
                runs[0].path,
            )
        if drawn := self.learned_from_phantoms:
            log.warning(
                '%s learned from drawn phantoms: on real radiographs the masks and probabilities '
                'mean nothing',
                ', '.join(drawn),
            )
        self.batch_size = self.members[0].batch_size
        if images is not None:
            self.batch_size = max(1, min(self.batch_size, images))
        self._in_float32: _Lazy | None = None  # for borderline images
        if choice.name == 'jax':
            self._use_jax(choice.precision)
            return
        try:
            self._use_cpu(choice)
        except exported.CannotExport as error:
            if choice.named:
                raise
            log.info('%s; predicting with JAX', error)
            self._use_jax(choice.precision)

    def _use_jax(self, precision: str) -> None:
        from pneumojax.runtimes.jax_runtime import Jax  # late: importing JAX takes a second

        runtime = Jax(precision)
        self.batch_size = runtime.batch_size(self.batch_size)
        self._networks = [runtime.network(m) for m in self.members]
        self.runtime = {'name': runtime.name, 'precision': runtime.precision}

    def _use_cpu(self, choice: choose.Choice) -> None:
        from pneumojax.runtimes import cpu_runtimes, export_cache

        runtime: cpu_runtimes.OpenVINO | cpu_runtimes.OnnxRuntime
        if choice.name == 'openvino':
            runtime = cpu_runtimes.OpenVINO(choice.precision)
        else:
            runtime = cpu_runtimes.OnnxRuntime()
        models = [(export_cache.model_of(m), m.image_size) for m in self.members]
        self._networks = [runtime.network(*model) for model in models]
        if runtime.precision == 'bfloat16_checked':
            float32 = cpu_runtimes.OpenVINO('float32')
            self._in_float32 = _Lazy(lambda: [float32.network(*model) for model in models])
        self.runtime = {'name': runtime.name, 'precision': runtime.precision}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the squares that `predict` wants, each once, in the members' order."""
        return tuple(dict.fromkeys(m.image_size for m in self.members))

    @property
    def identity(self) -> list[dict[str, Any]]:
        """JSON that says which weights predict."""
        return [m.identity for m in self.members]

    @property
    def stated_calibration(self) -> dict[str, Any] | None:
        """JSON that says how image probabilities are calibrated, if they are."""
        return dataclasses.asdict(self.calibration) if self.calibration else None

    @property
    def learned_from_phantoms(self) -> list[str]:
        """Names of the members that were trained on drawings."""
        return [m.identity['name'] for m in self.members if m.identity.get('phantoms')]

    def predict(self, batch: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        """Mean probabilities over the members of each size.

        Args:
          batch: side -> uint8 [B, side, side], for each of `sizes`; B is at most `batch_size`.

        Returns:
          side -> float32 [B, side, side].
        """
        return self._predict(self._networks, batch)

    def _predict(
        self, networks: Sequence[choose.Network], batch: dict[int, np.ndarray]
    ) -> dict[int, np.ndarray]:
        # Start all members before waiting for the first result.
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
        """Probabilities of one image at its original size, from which its mask is made.

        If the precision is 'bfloat16_checked' and the image is borderline, it is predicted again in
        float32. Safe to call from any thread.

        Args:
          images: side -> uint8 [side, side], the image.
          predicted: side -> float32 [side, side], what `predict` gave for it.
          shape, aspect: see `unfit`.

        Returns:
          (float32 [H, W], whether the image was predicted again).
        """
        whole = self.unfit(predicted, shape, aspect)
        if self._in_float32 is None or not borderline.is_borderline(self.rule, whole):
            return whole, False
        batch = {size: image[None] for size, image in images.items()}
        again = self._predict(self._in_float32(), batch)
        return self.unfit({size: p[0] for size, p in again.items()}, shape, aspect), True

    def image_probability(self, score: float) -> float:
        """The calibrated probability of an image with this score; the score if there is none."""
        return score if self.calibration is None else float(self.calibration(np.array(score)))

    def share(self, size: int) -> tuple[int, int]:
        """(members of that image size, all members)."""
        return sum(m.image_size == size for m in self.members), len(self.members)

    def unfit(self, squares: Squares, shape: tuple[int, int], aspect: float) -> np.ndarray:
        """Probabilities of one image at its original size, averaged over all members.

        Args:
          squares: side -> float32 [side, side].
          shape: (H, W) of the original.
          aspect: height of one of its pixels over its width.

        Returns:
          float32 [H, W].
        """

        def weighted(size: int) -> np.ndarray:
            whole = geometry.unfit(squares[size], shape, aspect)
            part, all_members = self.share(size)
            return whole if part == all_members else whole * np.float32(part / all_members)

        return functools.reduce(np.add, map(weighted, squares))


class _Lazy:
    """Calls a function when its result is first needed; any thread may ask, it is called once."""

    def __init__(self, make: Callable[[], list[choose.Network]]):
        self._make, self._lock = make, threading.Lock()
        self._made: list[choose.Network] | None = None

    def __call__(self) -> list[choose.Network]:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made


def _read_run(run: Run) -> EvaluatedRun:
    if exported.is_export(run.path):
        member = ensemble_member.of_export(run.path)
        assert member.rule is not None  # of_export refuses an export without one
        return EvaluatedRun(member.rule, member.calibration, member.evaluation, [member])
    whole, trained = layout.predicting_runs(pretrained_folder.opened(run))
    return EvaluatedRun(
        ensemble_member.read_rule(whole),
        ensemble_member.read_calibration(whole),
        ensemble_member.read_evaluation(whole),
        [ensemble_member.of_run(part) for part in trained],
    )
