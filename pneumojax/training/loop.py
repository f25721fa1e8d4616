"""Trains one stage: from a configuration and a run directory to its last checkpoint."""

import contextlib
import time
import zlib
from collections import deque
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from pneumojax import config as config_lib
from pneumojax.data import dataset as dataset_lib
from pneumojax.data import pipeline, sampling
from pneumojax.data.dataset import Dataset
from pneumojax.errors import UsageError
from pneumojax.models import build
from pneumojax.runs.checkpoints import Saver
from pneumojax.runs.run import Run
from pneumojax.system import processes, signals
from pneumojax.system.devices import Devices
from pneumojax.system.progress import log
from pneumojax.training import averaging, initialization, optimizer, placement, state, steps
from pneumojax.training.metrics_log import MetricsLog
from pneumojax.training.profile import Profile


def train(config, run: Run, *, profile: int = 0) -> None:
    """Trains, or continues where the run's newest checkpoint stands, to the last epoch.

    Ctrl-C and SIGTERM stop it after the step it is at, with a checkpoint.

    Args:
      config: of one run, without stages or folds.
      run: its directory.
      profile: steps to trace into `profile/`, see `Profile`.

    Raises:
      UsageError: the data, the run directory or the weights to start from cannot be used, or
        another process trains in the same directory.
      FloatingPointError: the loss or the weights are no longer finite.
      Interrupted: a signal came; all that was done is in the newest checkpoint.
    """
    devices = Devices(all_processes=True)
    devices.check_batch_size('batch_size', config.batch_size)
    with contextlib.ExitStack() as owner:
        owned = False
        if (
            run.exists and processes.is_main()
        ):  # another config's, or in use: said before hours of work
            run.start(config)
            owner.enter_context(run.lock())
            owned = True
        if config.init_from and run.checkpoints.latest_step() is None:
            initialization.require_checkpoint(Run(config.init_from))
        dataset = processes.main_first(lambda: dataset_lib.load(config))
        if processes.is_main() and not owned:
            run.start(config)
            owner.enter_context(run.lock())
            run.start(config)  # meanwhile another process may have
        _train(config, run, devices, dataset, profile)


def _train(config, run: Run, devices: Devices, dataset: Dataset, profile: int) -> None:
    if processes.is_main():
        keep_split(run, dataset)
    plan = make_plan(config, dataset)
    tx = optimizer.make_optimizer(config, plan)
    restored, ended = processes.main_first(lambda: initialization.resume(run, config, tx)), True
    processes.require_same(
        configuration=zlib.crc32(config_lib.to_json(config).encode()),
        images=zlib.crc32(plan.order.tobytes()),
        checkpoint=-1 if restored is None else int(restored.step),
    )
    if restored is None:
        variables = initialization.variables(config, dataset.split_ids()['validation'])
        restored = jax.device_get(state.create_state(variables, tx))
    else:
        step = int(restored.step)
        ended = run.checkpoints.details(step).get('ended', True)
        if step >= plan.total_steps and ended:
            log.info('%s is complete: step %d of %d', run.path, step, plan.total_steps)
            return
        log.info('%s continues from step %d of %d', run.path, step, plan.total_steps)
    log.info('%s', build.overview(config))
    stage = Stage(config, run, devices, dataset, plan, tx)
    stage.train(restored, ended=ended, profile=profile)


def make_plan(config, dataset: Dataset) -> sampling.Plan:
    """The order of all training images over all epochs."""
    return sampling.make_plan(
        dataset.positive[dataset.train],
        num_epochs=config.num_epochs,
        batch_size=config.batch_size,
        seed=config.seed,
        positive_share=config.sampling.positive_share,
    )


def keep_split(run: Run, dataset: Dataset) -> None:
    """Records which images are held out, or checks that they are still the same."""
    split = dataset.split_ids()
    if (run / 'split.json').exists():
        if run.read_json('split.json') != split:
            raise UsageError(
                f'{run.path} was split over other images (split.json): the data set has changed '
                'since; give another --workdir'
            )
    else:
        run.write_json('split.json', split)


class Stage:
    """One stage being trained: what stays the same from step to step."""

    def __init__(self, config, run: Run, devices: Devices, dataset: Dataset, plan, tx):
        self.config, self.run, self.devices = config, run, devices
        self.dataset, self.plan = dataset, plan
        self.feed = placement.make_feed(config, devices, dataset.records)
        axis = devices.axis_name
        step = steps.make_train_step(config, tx, axis)
        if processes.process_count() > 1:
            assert axis is not None  # several processes have several devices
            step = signals.vote(step, axis)
        self.train_step = devices.compile(step, 'the training step', donate=(0,))
        self.eval_step = devices.compile(steps.make_eval_step(config, axis), 'the validation step')
        self.statistics_step = devices.compile(
            steps.make_statistics_step(config, axis), 'the statistics step'
        )
        self.learning_rate = optimizer.learning_rate(config, plan)

    def train(self, train_state, *, ended: bool = True, profile: int = 0) -> None:
        """Runs every step from the state's own to the end of the plan.

        Args:
          train_state: where to start, in host memory.
          ended: False where the state stands at the end of an epoch whose end (validation, a
            checkpoint) is still to do.
          profile: steps to trace, of process 0.
        """
        config, plan, first_step = self.config, self.plan, int(train_state.step)
        train_state = self.devices.replicate(train_state)
        batches = pipeline.train_batches(
            self.feed.records, self.dataset.train, plan,
            start_step=first_step, workers=config.data.workers,
        )  # fmt: skip
        saved_step = first_step if first_step else None
        if processes.is_main():
            self.run.forget_metrics_after(first_step, validated=ended)
        if first_step == plan.total_steps:  # its place is needed, for the same with averages
            processes.on_main(lambda: self.run.checkpoints.replace(first_step))
            saved_step = None
        with (
            MetricsLog(self.run) as self.log,
            Saver(self.run.checkpoints, config.checkpoint.keep) as self.saver,
            tqdm(
                total=plan.total_steps, initial=first_step, unit='step', mininterval=0.5,
                desc=f'{config.name} {config.image_size} px', disable=not processes.is_main(),
            ) as self.progress,
            signals.Held() as self.signal,
            Profile(self.run / 'profile', profile if processes.is_main() else 0) as traced,
        ):  # fmt: skip
            self.saver.step = saved_step
            self.waiting: deque = deque()
            self.agreed = 0  # on ending, by this signal
            self.since = time.monotonic()
            if not ended:
                self._end_epoch(plan.epoch(first_step), first_step, train_state)
            batch = self.feed.place(next(batches)) if first_step < plan.total_steps else None
            for step in range(first_step, plan.total_steps):
                self._stop_if_asked(step, train_state)
                if processes.process_count() > 1:
                    assert batch is not None  # there is one for every step
                    own = np.full((self.devices.count, 1), self.signal.received or 0, np.int32)
                    batch[signals.VOTE] = own
                train_state, metrics = traced.step(self.train_step, train_state, batch)
                self.waiting.append((step + 1, metrics))
                # The next batch travels while the device computes; metrics are read two steps
                # late, so that reading them never makes it wait.
                following = self._next(batches, step + 1, train_state)
                batch = following if following is None else self.feed.place(following)
                if len(self.waiting) > 2:
                    self._report(*self.waiting.popleft())
                if step + 1 == plan.epoch_ends[plan.epoch(step)]:
                    self._end_epoch(plan.epoch(step) + 1, step + 1, train_state)
        if processes.is_main():
            self.run.checkpoints.put_back()

    def _next(self, batches, step: int, train_state) -> pipeline.Batch | None:
        """The batch after `step` steps, None after the last. No step is lost to a bad record."""
        try:
            return next(batches, None)
        except UsageError:
            if processes.process_count() == 1:  # the others know nothing of it
                self._report_waiting()
                self._save(step, train_state, {}, ended=step not in self.plan.epoch_ends)
            raise

    def _stop_if_asked(self, step: int, train_state, *, ended: bool = True) -> None:
        """After a signal: a checkpoint of the steps done so far, then the end."""
        if not self._asked(ended):
            return
        self._report_waiting()
        if step and step != self.saver.step:
            self._save(step, train_state, {}, ended=ended)
        raise signals.Interrupted(self.signal.received or self.agreed)

    def _asked(self, between_steps: bool) -> bool:
        """Whether to stop. Several processes stop at the same step: see `signals.vote`."""
        if processes.process_count() == 1:
            return self.signal.received is not None
        return between_steps and self.agreed > 0

    def _report_waiting(self) -> None:
        while self.waiting:
            self._report(*self.waiting.popleft())

    def _report(self, step: int, metrics: Any) -> None:
        """Reads the metrics of a finished step; writes a line now and then."""
        values = {k: float(v) for k, v in self.devices.first(metrics).items()}
        self.agreed = max(self.agreed, int(values.pop(signals.VOTE, 0)))
        self.progress.update()
        if not np.isfinite(list(values.values())).all():
            raise self._not_finite(step, ', '.join(f'{k} {v:g}' for k, v in values.items()))
        if step % self.config.log_every_steps == 0 or step == self.plan.total_steps:
            self.progress.set_postfix(loss=f'{values["loss"]:.3f}', refresh=False)
            updates = (step - 1) // self.config.optimizer.accumulate
            seconds, self.since = time.monotonic() - self.since, time.monotonic()
            self.log.write(
                step=step, epoch=self.plan.epoch(step - 1), split='train', **values,
                learning_rate=float(self.learning_rate(updates)),
                seconds=round(seconds, 3),
            )  # fmt: skip

    def _not_finite(self, step: int, what: str) -> FloatingPointError:
        """Names all that is needed to look into it. Nothing of it is in any checkpoint."""
        ids = self.plan.order.reshape(-1, self.plan.batch_size)[step - 1]
        names = [self.dataset.examples[self.dataset.train[i]].image_id for i in ids]
        rate = self.learning_rate((step - 1) // self.config.optimizer.accumulate)
        self.saver.wait()
        last = self.run.checkpoints.latest_step()
        return FloatingPointError(
            f'not finite at step {step}: {what}; learning rate {float(rate):.3g}, images '
            f'{", ".join(names)}; '
            + ('no checkpoint was written before it' if last is None else
               f'the state before it is kept in checkpoint {last}, which leads to it again')
            + '; try a lower optimizer.learning_rate or optimizer.clip_norm in another --workdir'
        )  # fmt: skip

    def _end_epoch(self, epoch: int, step: int, train_state) -> None:
        """After `epoch` whole epochs: a look at the validation images, and a checkpoint."""
        self._report_waiting()
        config, last = self.config, step == self.plan.total_steps

        def alive():
            self._stop_if_asked(step, train_state, ended=False)

        every = config.evaluation.every_epochs
        if every and (epoch % every == 0 or last):
            values = self._validate(train_state.variables, alive)
            if not np.isfinite(values['loss']):
                raise self._not_finite(step, f'validation loss {values["loss"]:g} after it')
            self.log.write(step=step, epoch=epoch - 1, split='validation', **values)
            self.progress.set_postfix(
                epoch=epoch, val_loss=f'{values["loss"]:.3f}', refresh=False,
                positive_dice=f'{values["positive_dice"] or 0:.3f}',
            )  # fmt: skip
        if last:
            self._save(step, train_state, self._averaged(train_state, alive))
        elif epoch % config.checkpoint.every_epochs == 0 and step != self.saver.step:
            self._save(step, train_state, {})

    def _save(self, step: int, train_state, more: dict[str, Any], *, ended: bool = True) -> None:
        """Starts to write a checkpoint; weights that are not finite never reach the disk."""
        items = {
            name: self.devices.first(getattr(train_state, name)) for name in initialization.ITEMS
        }
        items |= more
        for name, tree in items.items():
            leaves = [x for x in jax.tree.leaves(tree) if np.issubdtype(x.dtype, np.inexact)]
            if not all(np.isfinite(x).all() for x in leaves):
                raise self._not_finite(step, f'{name} after it')
        self.saver.save(
            step, items, epoch=self.plan.epoch(step), num_epochs=self.config.num_epochs,
            ended=ended,
        )  # fmt: skip

    def _validate(self, variables, alive: Callable[[], None]) -> dict[str, Any]:
        """Loss and hard Dice at 0.5 of the validation images, at `image_size`, no TTA."""
        size = self.devices.padded(self.config.evaluation.batch_size)
        sums = None
        for batch in self._batches(self.dataset.validation, size):
            new = self.eval_step(variables, self.feed.place(batch))
            sums = new if sums is None else jax.tree.map(lambda a, b: a + b, sums, new)
            self.progress.refresh()
            alive()
        s = {k: float(v) for k, v in self.devices.first(sums).items()}
        return {
            'loss': s['loss'] / s['images'],
            'dice': s['dice'] / s['images'],
            'positive_dice': s['positive_dice'] / s['positives'] if s['positives'] else None,
        }

    def _averaged(self, train_state, alive: Callable[[], None]) -> dict[str, Any]:
        """The averaged weights with batch statistics of their own; nothing where there are none."""
        average = averaging.find_average(train_state.opt_state)
        if average is None:
            return {}
        params = average.average
        # Frozen: the average was trained with these, as they are. -1: asked to do as A and K did.
        if self.config.model.frozen_batch_norm or self.config.averaging.bn_examples < 0:
            return {
                'average_params': self.devices.first(params),
                'average_batch_stats': self.devices.first(train_state.batch_stats),
            }
        count = self.config.averaging.bn_examples or len(self.dataset.train)
        # Whole batches only: a padded one would count some images twice.
        size = self.devices.padded(min(self.config.batch_size, len(self.dataset.train)))
        chosen = np.random.default_rng([self.config.seed, 2]).permutation(self.dataset.train)
        chosen = chosen[: max(size, min(count, len(chosen)) // size * size)]
        chosen = np.resize(chosen, max(size, len(chosen)))
        total, batches = None, 0
        progress = tqdm(
            total=len(chosen) // size, desc='statistics of the average', unit='step',
            disable=not processes.is_main(),
        )  # fmt: skip
        for batch in self._batches(chosen, size):
            stats = self.statistics_step(params, train_state.batch_stats, self.feed.place(batch))
            total = stats if total is None else jax.tree.map(lambda a, b: a + b, total, stats)
            batches += 1
            jax.block_until_ready(total)
            progress.update()
            alive()
        progress.close()
        return {
            'average_params': self.devices.first(params),
            'average_batch_stats': jax.tree.map(
                lambda s: (s / batches).astype(s.dtype), self.devices.first(total)
            ),
        }

    def _batches(self, indices, size: int):
        """This process's share of batches of `size` images, padded."""
        return pipeline.evaluation_batches(
            self.feed.records, indices, size,
            share=pipeline.Share(processes.process_index(), processes.process_count()),
        )  # fmt: skip
