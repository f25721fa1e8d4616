"""Trains one run: from a configuration and a run directory to its last checkpoint."""

import contextlib
import functools
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

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
from pneumojax.system.progress import bar, log
from pneumojax.training import averaging, initialization, optimizer, placement, steps
from pneumojax.training.metrics_log import MetricsLog
from pneumojax.training.profile import Profile
from pneumojax.training.recalibration import choose_images, update_batch_stats
from pneumojax.training.state import TrainState, create_state
from pneumojax.training.stopping import StopRequest
from pneumojax.training.validation import validate
from pneumojax.training.validation_pictures import ValidationPictures


def train(config: ml_collections.ConfigDict, run: Run, *, profile: int = 0) -> None:
    """Trains to the last epoch, from the run's newest checkpoint if it has one.

    Ctrl-C, SIGTERM and SIGHUP stop it after the current step, with a checkpoint.

    Args:
      config: of one run, without stages or folds.
      run: its directory.
      profile: steps to trace into `profile/`, see `Profile`.

    Raises:
      UsageError: the data, the run directory or the weights to start from cannot be used, or
        another process is training in the same directory.
      FloatingPointError: the loss or the weights are no longer finite.
      Interrupted: a signal came; everything done before it is in the newest checkpoint.
    """
    devices = Devices(all_processes=True)
    devices.check_batch_size('batch_size', config.batch_size)
    with contextlib.ExitStack() as stack:

        def claim() -> None:
            run.start(config)
            stack.enter_context(run.lock())
            run.start(config)  # another process may have started it before the lock was ours

        existed = run.exists
        if existed and processes.is_main():  # fail early if it is in use, or another config's
            claim()
        is_new = run.checkpoints.latest_step() is None
        processes.main_first(lambda: initialization.require_start(config) if is_new else None)
        dataset = processes.main_first(lambda: dataset_lib.load(config))
        # A directory is claimed only with all there that its training needs.
        start = initial_variables(config, dataset) if is_new else None
        if not existed and processes.is_main():
            claim()
        _train(config, run, devices, dataset, start, profile)


def initial_variables(config: ml_collections.ConfigDict, dataset: Dataset) -> dict[str, Any]:
    """The weights of step 0, see `initialization.initial_variables`."""
    return initialization.initial_variables(config, dataset.split_ids()['validation'])


def _train(
    config: ml_collections.ConfigDict,
    run: Run,
    devices: Devices,
    dataset: Dataset,
    start: dict[str, Any] | None,
    profile: int,
) -> None:
    if processes.is_main():
        keep_split(run, dataset)
    plan = make_plan(config, dataset)
    tx = optimizer.make_optimizer(config, plan)
    state, epoch_ended = processes.main_first(lambda: initialization.resume(run, config, tx)), True
    processes.require_same(
        configuration=zlib.crc32(config_lib.to_json(config).encode()),
        images=zlib.crc32(plan.order.tobytes()),
        checkpoint=-1 if state is None else int(state.step),
    )
    if state is None:
        start = start or initial_variables(config, dataset)
        state = jax.device_get(create_state(start, tx, config.seed))
    else:
        step = int(state.step)
        epoch_ended = run.checkpoints.details(step).get('ended', True)
        if step >= plan.total_steps and epoch_ended:
            log.info('%s is complete: step %d of %d', run.path, step, plan.total_steps)
            return
        log.info('%s continues from step %d of %d', run.path, step, plan.total_steps)
        planned = run.checkpoints.details(step).get('num_epochs', config.num_epochs)
        if planned != config.num_epochs:
            state = initialization.train_on(state, config, plan, planned)
    log.info('%s', build.overview(config))
    trainer = Trainer(config, run, devices, dataset, plan, first_step=int(state.step))
    trainer.train(state, epoch_ended=epoch_ended, profile=profile)


def make_plan(config: ml_collections.ConfigDict, dataset: Dataset) -> sampling.Plan:
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
                f'{run.path}: the data set has changed since this run started: its images are no '
                'longer split as split.json says; give another --workdir'
            )
    else:
        run.write_json('split.json', split)


class Trainer:
    """The training of one run: everything that stays the same from step to step.

    Args:
      config: of one run.
      run: its directory, which this process may write.
      devices: that train.
      dataset: images to train on and to validate on.
      plan: of the whole run.
      first_step: steps that are already done.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        run: Run,
        devices: Devices,
        dataset: Dataset,
        plan: sampling.Plan,
        first_step: int,
    ):
        self.config, self.run, self.devices = config, run, devices
        self.dataset, self.plan, self.first_step = dataset, plan, first_step
        self.placement = placement.make_placement(config, devices, dataset.records)
        tx, axis = optimizer.make_optimizer(config, plan), devices.axis_name
        self.train_step = devices.compile(
            steps.make_train_step(config, tx, axis), 'the training step', donate=(0,)
        )
        self.eval_step = devices.compile(steps.make_eval_step(config, axis), 'the validation step')
        self.batch_stats_step = devices.compile(
            steps.make_batch_stats_step(config, axis), 'the BatchNorm recalibration'
        )
        self.learning_rate = optimizer.learning_rate(config, plan)
        self.stop = StopRequest(devices)
        self.log = MetricsLog(run)
        shows = processes.is_main() and config.evaluation.pictures and not config.loss.restoration
        self.pictures = ValidationPictures(config, dataset) if shows else None
        self.saver = Saver(run.checkpoints, config.checkpoint.keep)
        self.saver.step = first_step or None
        self.progress = bar(
            desc=f'{config.name} {config.image_size} px', total=plan.total_steps, unit='step',
            initial=first_step, disable=not processes.is_main(),
        )  # fmt: skip
        self.unread: deque[tuple[int, Any]] = deque()  # (step, metrics still on the devices)
        self.last_line = time.monotonic()  # when the last line of metrics was written

    def train(self, state: TrainState, *, epoch_ended: bool = True, profile: int = 0) -> None:
        """Runs every step from the state's own to the end of the plan.

        Args:
          state: where to start, in host memory.
          epoch_ended: False where the state stands at the end of an epoch that was interrupted
            there: its validation and its checkpoint are still to do.
          profile: steps to trace, on process 0.
        """
        first_step, plan = self.first_step, self.plan
        self._make_room(epoch_ended)
        state = self.devices.replicate(state)
        batches = pipeline.train_batches(
            self.placement.records, self.dataset.train, plan,
            start_step=first_step, workers=self.config.data.workers,
        )  # fmt: skip
        tracer = Profile(self.run / 'profile', profile if processes.is_main() else 0)
        with self.log, self.saver, self.progress, self.stop, tracer:
            if not epoch_ended:
                self._end_epoch(first_step, state)
            batch = self._next_batch(batches, first_step, state)
            for step in range(first_step, plan.total_steps):
                self._stop_if_asked(step, state)
                state, metrics = tracer.step(self.train_step, state, batch)
                self.unread.append((step + 1, metrics))
                # The next batch travels while the devices compute, and metrics are read two steps
                # late: the host never makes the devices wait.
                batch = self._next_batch(batches, step + 1, state)
                self._report(keep=2)
                if step + 1 in plan.epoch_ends:
                    self._end_epoch(step + 1, state)
        if processes.is_main():
            self.run.checkpoints.put_back()

    def _make_room(self, epoch_ended: bool) -> None:
        """Removes from the run what the steps from `first_step` on will write again."""
        if processes.is_main():
            self.run.forget_metrics_after(self.first_step, validated=epoch_ended)
        if self.first_step == self.plan.total_steps:  # the same step again, now with the average
            processes.on_main(lambda: self.run.checkpoints.replace(self.first_step))
            self.saver.step = None

    def _next_batch(
        self, batches: Iterator[pipeline.Batch], step: int, state: TrainState
    ) -> steps.Batch | None:
        """The batch after `step` steps, on its way to the devices; None after the last one.

        A record that cannot be read ends training, but no step before it is lost.
        """
        try:
            batch = next(batches, None)
        except UsageError:
            if processes.process_count() == 1:  # other processes would not save with this one
                self._save_progress(step, state, epoch_ended=step not in self.plan.epoch_ends)
            raise
        return None if batch is None else self.placement.place(batch)

    def _stop_if_asked(self, step: int, state: TrainState, *, epoch_ended: bool = True) -> None:
        """After a signal: a checkpoint of the steps done so far, then the end."""
        signum = self.stop.received()
        if signum is not None:
            self._save_progress(step, state, epoch_ended=epoch_ended)
            raise signals.Interrupted(signum)

    def _report(self, keep: int = 0) -> None:
        """Reads the metrics of finished steps, but for the newest `keep`."""
        while len(self.unread) > keep:
            self._report_step(*self.unread.popleft())

    def _report_step(self, step: int, metrics: Any) -> None:
        """Checks that the values of one step are finite; now and then writes a line of them."""
        values = {name: float(value) for name, value in self.devices.unreplicate(metrics).items()}
        self.progress.update()
        if not np.isfinite(list(values.values())).all():
            raise self._not_finite(step, ', '.join(f'{k} {v:g}' for k, v in values.items()))
        if step % self.config.log_every_steps == 0 or step == self.plan.total_steps:
            self.progress.set_postfix(loss=f'{values["loss"]:.3f}', refresh=False)
            seconds, self.last_line = time.monotonic() - self.last_line, time.monotonic()
            self.log.write(
                step=step, epoch=self.plan.epoch(step - 1), split='train', **values,
                learning_rate=self._learning_rate_at(step), seconds=round(seconds, 3),
            )  # fmt: skip

    def _learning_rate_at(self, step: int) -> float:
        return float(self.learning_rate((step - 1) // self.config.optimizer.accumulate))

    def _not_finite(self, step: int, what: str) -> FloatingPointError:
        """The error that says where to look. No checkpoint holds such values."""
        rows = self.plan.order.reshape(-1, self.plan.batch_size)[step - 1]
        images = [self.dataset.examples[self.dataset.train[i]].image_id for i in rows]
        self.saver.wait()
        last = self.run.checkpoints.latest_step()
        return FloatingPointError(
            f'not finite at step {step}: {what}; learning rate {self._learning_rate_at(step):.3g}, '
            f'images {", ".join(images)}; '
            + ('no checkpoint was written before it' if last is None else
               f'the state before it is kept in checkpoint {last}, which leads to it again')
            + '; try a lower optimizer.learning_rate or optimizer.clip_norm in another --workdir'
        )  # fmt: skip

    def _end_epoch(self, step: int, state: TrainState) -> None:
        """After the last step of an epoch: validation and a checkpoint, each where it is due."""
        self._report()
        epoch, last = self.plan.epoch(step), step == self.plan.total_steps
        stop_if_asked = functools.partial(self._stop_if_asked, step, state, epoch_ended=False)
        every = self.config.evaluation.every_epochs
        if every and (epoch % every == 0 or last):
            self._validate(step, state.variables, stop_if_asked)
        if last:
            self._save(step, state, self._averaged(state, stop_if_asked))
        elif epoch % self.config.checkpoint.every_epochs == 0 and step != self.saver.step:
            self._save(step, state)

    def _validate(self, step: int, variables: Any, stop_if_asked: Callable[[], None]) -> None:
        """Writes down the loss and the Dice of the validation images after an epoch."""
        size = self.devices.padded(self.config.evaluation.batch_size)
        batches = self._evaluation_batches(self.dataset.validation, size, stop_if_asked)
        values = validate(self.eval_step, variables, batches, self.devices)
        if not np.isfinite(values['loss']):
            raise self._not_finite(step, f'validation loss {values["loss"]:g} after it')
        epoch = self.plan.epoch(step)
        self.log.write(step=step, epoch=epoch - 1, split='validation', **values)
        if self.pictures:
            pictures = self.pictures.draw(self.devices.unreplicate(variables))
            self.log.write_pictures(step, pictures)
        shown = {'val_loss': values['loss'], 'positive_dice': values.get('positive_dice')}
        self.progress.set_postfix(
            epoch=epoch, refresh=False,
            **{name: f'{value:.3f}' for name, value in shown.items() if value is not None},
        )  # fmt: skip

    def _averaged(self, state: TrainState, stop_if_asked: Callable[[], None]) -> dict[str, Any]:
        """The averaged weights and their batch statistics, as items of a checkpoint, if any."""
        average, config = averaging.find_average(state.opt_state), self.config
        if average is None:
            return {}
        # With frozen BatchNorm the average was trained with these statistics. -1: to do as A and K.
        if config.model.frozen_batch_norm or config.averaging.bn_examples < 0:
            batch_stats = self.devices.unreplicate(state.batch_stats)
        else:
            train = self.dataset.train
            size = self.devices.padded(min(config.batch_size, len(train)))
            images = choose_images(config, train, size)
            batch_stats = update_batch_stats(
                self.batch_stats_step, average.average, state.batch_stats,
                self._evaluation_batches(images, size, stop_if_asked), len(images) // size,
                self.devices,
            )  # fmt: skip
        params = self.devices.unreplicate(average.average)
        return {'average_params': params, 'average_batch_stats': batch_stats}

    def _evaluation_batches(
        self, indices: np.ndarray, size: int, stop_if_asked: Callable[[], None]
    ) -> Iterator[steps.Batch]:
        """This process's share of padded batches of `size` images, on the devices."""
        for batch in pipeline.evaluation_batches(
            self.placement.records, indices, size,
            share=pipeline.Share(processes.process_index(), processes.process_count()),
        ):  # fmt: skip
            yield self.placement.place(batch)
            self.progress.refresh()
            stop_if_asked()

    def _save_progress(self, step: int, state: TrainState, *, epoch_ended: bool) -> None:
        """Before training ends early: reports and saves what is not yet."""
        self._report()
        if step and step != self.saver.step:
            self._save(step, state, epoch_ended=epoch_ended)

    def _save(
        self,
        step: int,
        state: TrainState,
        average: dict[str, Any] | None = None,
        *,
        epoch_ended: bool = True,
    ) -> None:
        """Starts to write a checkpoint; weights that are not finite never reach the disk."""
        items = {
            name: self.devices.unreplicate(getattr(state, name)) for name in initialization.ITEMS
        }
        items |= average or {}
        for name, tree in items.items():
            leaves = [x for x in jax.tree.leaves(tree) if np.issubdtype(x.dtype, np.inexact)]
            if not all(np.isfinite(x).all() for x in leaves):
                raise self._not_finite(step, f'{name} after it')
        self.saver.save(
            step, items, epoch=self.plan.epoch(step), num_epochs=self.config.num_epochs,
            ended=epoch_ended,
        )  # fmt: skip
