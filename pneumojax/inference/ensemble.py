"""One or several trained runs as one network: probabilities of squares, averaged over the runs."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pneumojax import layout
from pneumojax.data import geometry
from pneumojax.devices import Devices
from pneumojax.errors import UsageError
from pneumojax.inference import thresholds, tta
from pneumojax.models import build
from pneumojax.progress import log
from pneumojax.run import Run


class Member(NamedTuple):
    """One run, as its thresholds.json says it was judged."""

    config: Any
    variables: Any
    flips: tuple[str, ...]
    identity: dict[str, Any]  # JSON: which weights these are


class Ensemble:
    """Runs that predict together.

    Args:
      runs: evaluated run directories, with folds or stages or plain; the rule that makes masks is
        the first one's. The folds of a k-fold training are averaged.

    Raises:
      UsageError: a run that is not trained, not evaluated, or trained on since.
    """

    def __init__(self, runs: Sequence[Run]):
        if not runs:
            raise UsageError('--workdir: name at least one trained run')
        judged, trained = zip(*(layout.predicting(run) for run in runs), strict=True)
        self.members = [_member(run) for run in itertools.chain(*trained)]
        self.rule = read_rule(judged[0])
        rules = {dataclasses.astuple(read_rule(run)) for run in judged}
        if len(rules) > 1:
            log.info('the runs have different thresholds; those of %s are used', judged[0].path)
        self.batch_size = judged[0].config().evaluation.batch_size
        self.devices = Devices()
        # As many as every device gets its share of.
        self.batch_size = -(-self.batch_size // self.devices.count) * self.devices.count
        self._variables = [self.devices.replicate(m.variables) for m in self.members]
        self._functions = self._compile()

    def _compile(self):
        """One compiled function for all members that need the same one."""
        made, functions = {}, []
        for member in self.members:
            config = member.config
            key = (config.image_size, member.flips, str(config.model))
            if key not in made:
                function = tta.make_predict(config, build.make_model(config), member.flips)
                views = f'{config.image_size} px' + ', flipped too' * bool(member.flips)
                made[key] = self.devices.compile(function, f'the prediction ({views})')
            functions.append(made[key])
        return functions

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the squares that `squares` wants, each once, in the members' order."""
        return tuple(dict.fromkeys(member.config.image_size for member in self.members))

    @property
    def identity(self) -> list[dict[str, Any]]:
        """JSON: which weights predict."""
        return [member.identity for member in self.members]

    def predict(self, batch: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        """Mean probabilities over the members of each size.

        Args:
          batch: side -> uint8 [B, side, side], for each of `sizes`; B is at most `batch_size`.

        Returns:
          side -> float32 [B, side, side].
        """
        count = len(next(iter(batch.values())))
        shards = {}
        for size, images in batch.items():
            padded = np.zeros((self.batch_size, size, size), np.uint8)
            padded[:count] = images
            shards[size] = self.devices.shard(padded)
        # All members are started before the first result is waited for.
        results = [
            (member.config.image_size, function(variables, shards[member.config.image_size]))
            for member, function, variables in zip(
                self.members, self._functions, self._variables, strict=True
            )
        ]
        sums: dict[int, np.ndarray] = {}
        for size, result in results:
            squares = self.devices.gather(result)[:count]
            sums[size] = sums[size] + squares if size in sums else squares
        return {size: total / np.float32(self.share(size)[0]) for size, total in sums.items()}

    def share(self, size: int) -> tuple[int, int]:
        """(members of that size, members)."""
        return sum(m.config.image_size == size for m in self.members), len(self.members)

    def unfit(self, squares: dict[int, np.ndarray], shape: tuple[int, int], aspect: float):
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


def read_rule(run: Run) -> thresholds.Rule:
    """The rule of a run's thresholds.json. UsageError when it is missing or broken."""
    stated = run.read_json('thresholds.json')
    try:
        return thresholds.Rule(
            *(stated[field.name] for field in dataclasses.fields(thresholds.Rule))
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f'{run / "thresholds.json"} holds no usable rule ({error}); run --mode=evaluate again'
        ) from None


def _member(run: Run) -> Member:
    config = run.config()
    stated = run.read_json('thresholds.json')
    try:
        step, averaged = int(stated['step']), stated['weights'] == 'average'
        flips, size = tuple(stated['flips']), int(stated['image_size'])
        tta.flip_axes(flips)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f'{run / "thresholds.json"} does not say which weights it is for ({error}); '
            'run --mode=evaluate again'
        ) from None
    latest = run.latest_step()
    if latest is None:
        raise UsageError(f'{run.path} has no checkpoint; train it first')
    if size != config.image_size or not (run / 'checkpoints' / str(step)).is_dir():
        raise UsageError(
            f'{run / "thresholds.json"} is of step {step} at {size} px, the run is at step '
            f'{latest} and {config.image_size} px; run --mode=evaluate on it again'
        )
    if latest != step:
        log.warning('%s: using step %d, which was evaluated, not %d', run.path, step, latest)
    variables = run.load_variables(step, build.variable_shapes(config), averaged=averaged)
    identity = {
        'run': str(run.path.resolve()),
        'name': config.name,
        'step': step,
        'weights': stated['weights'],
        'flips': list(flips),
        'image_size': size,
        'phantoms': bool(config.data.phantoms.num_images),
    }
    return Member(config, variables, flips, identity)
