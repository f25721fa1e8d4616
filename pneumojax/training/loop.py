"""Trains one stage: from a configuration and a run directory to its last checkpoint."""

import time
from collections import deque
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from pneumojax.data import dataset as dataset_lib
from pneumojax.data import pipeline, sampling
from pneumojax.data.dataset import Dataset
from pneumojax.devices import Devices
from pneumojax.errors import UsageError
from pneumojax.progress import log
from pneumojax.run import Run
from pneumojax.training import averaging, initial, optimizer, state, steps
from pneumojax.training.metrics_log import MetricsLog


def train(config, run: Run) -> None:
    """Trains, or continues where the run's newest checkpoint stands, to the last epoch.

    Raises:
      UsageError: the data, the run directory or the weights to start from cannot be used.
      FloatingPointError: the loss is no longer finite.
    """
    devices = Devices()
    devices.check_batch_size('batch_size', config.batch_size)
    if run.exists:
        run.start(config)  # another config's run: said before hours of decoding, not after
    if config.init_from and run.latest_step() is None:
        initial.require_checkpoint(Run(config.init_from))
    dataset = dataset_lib.load(config)
    run.start(config)
    keep_split(run, dataset)
    plan = make_plan(config, dataset)
    tx = optimizer.make_optimizer(config, plan)

    restored = initial.resume(run, config, tx)
    if restored is None:
        variables = initial.variables(config, dataset.split_ids()['validation'])
        restored = jax.device_get(state.create_state(variables, tx))
    elif restored.step >= plan.total_steps:
        log.info('%s is complete: step %d of %d', run.path, restored.step, plan.total_steps)
        return
    else:
        log.info('%s continues from step %d of %d', run.path, restored.step, plan.total_steps)
    Stage(config, run, devices, dataset, plan, tx).train(restored)


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
        axis = devices.axis_name
        self.train_step = devices.compile(
            steps.make_train_step(config, tx, axis), 'the training step', donate=(0,)
        )
        self.eval_step = devices.compile(steps.make_eval_step(config, axis), 'the validation step')
        self.statistics_step = devices.compile(
            steps.make_statistics_step(config, axis), 'the statistics step'
        )
        self.learning_rate = optimizer.learning_rate(config, plan)

    def train(self, train_state) -> None:
        """Runs every step from the state's own to the end of the plan."""
        config, plan, first_step = self.config, self.plan, int(train_state.step)
        train_state = self.devices.replicate(train_state)
        batches = pipeline.train_batches(
            self.dataset.records, self.dataset.train, plan,
            start_step=first_step, workers=config.data.workers,
        )  # fmt: skip
        self.run.forget_metrics_after(first_step)
        with (
            MetricsLog(self.run) as self.log,
            self.run.checkpointer(config.checkpoint.keep) as checkpointer,
            tqdm(
                total=plan.total_steps, initial=first_step, unit='step', mininterval=0.5,
                desc=f'{config.name} {config.image_size} px',
            ) as self.progress,
        ):  # fmt: skip
            waiting_metrics: deque = deque()
            self.since = time.monotonic()
            batch = self.devices.shard(next(batches))
            for step in range(first_step, plan.total_steps):
                train_state, metrics = self.train_step(train_state, batch)
                # The next batch travels while the device computes; metrics are read two steps
                # late, so that reading them never makes it wait.
                following = next(batches, None)
                batch = following if following is None else self.devices.shard(following)
                waiting_metrics.append((step + 1, metrics))
                if len(waiting_metrics) > 2:
                    self._report(*waiting_metrics.popleft())
                if step + 1 == plan.epoch_ends[plan.epoch(step)]:
                    while waiting_metrics:
                        self._report(*waiting_metrics.popleft())
                    self._end_epoch(plan.epoch(step) + 1, step + 1, train_state, checkpointer)

    def _report(self, step: int, metrics: Any) -> None:
        """Reads the metrics of a finished step; writes a line now and then."""
        values = {k: float(v) for k, v in self.devices.first(metrics).items()}
        self.progress.update()
        if not np.isfinite(list(values.values())).all():
            ids = self.plan.order.reshape(-1, self.plan.batch_size)[step - 1]
            names = [self.dataset.examples[self.dataset.train[i]].image_id for i in ids]
            raise FloatingPointError(
                f'not finite at step {step}: {values}, learning rate '
                f'{float(self.learning_rate(step - 1)):.3g}, images {", ".join(names)}; '
                f'the last checkpoint is step {self.run.latest_step()}'
            )
        if step % self.config.log_every_steps == 0 or step == self.plan.total_steps:
            self.progress.set_postfix(loss=f'{values["loss"]:.3f}', refresh=False)
            updates = (step - 1) // self.config.optimizer.accumulate
            seconds, self.since = time.monotonic() - self.since, time.monotonic()
            self.log.write(
                step=step, epoch=self.plan.epoch(step - 1), split='train', **values,
                learning_rate=float(self.learning_rate(updates)),
                seconds=round(seconds, 3),
            )  # fmt: skip

    def _end_epoch(self, epoch: int, step: int, train_state, checkpointer) -> None:
        """After `epoch` whole epochs: a look at the validation images, and a checkpoint."""
        config, last = self.config, step == self.plan.total_steps
        every = config.evaluation.every_epochs
        if every and (epoch % every == 0 or last):
            values = self._validate(train_state.variables)
            self.log.write(step=step, epoch=epoch - 1, split='validation', **values)
            self.progress.set_postfix(
                epoch=epoch, val_loss=f'{values["loss"]:.3f}', refresh=False,
                positive_dice=f'{values["positive_dice"] or 0:.3f}',
            )  # fmt: skip
        if epoch % config.checkpoint.every_epochs == 0 or last:
            items = {name: self.devices.first(getattr(train_state, name)) for name in initial.ITEMS}
            if last:
                items |= self._averaged(train_state)
            checkpointer.save_checkpointables_async(
                step, items, force=True,
                custom_metadata={'epoch': epoch, 'num_epochs': config.num_epochs},
            )  # fmt: skip

    def _validate(self, variables) -> dict[str, float | None]:
        """Loss and hard Dice at 0.5 of the validation images, at `image_size`, no TTA."""
        size = self._padded(self.config.evaluation.batch_size)
        sums = None
        for batch in pipeline.evaluation_batches(
            self.dataset.records, self.dataset.validation, size
        ):
            new = self.eval_step(variables, self.devices.shard(batch))
            sums = new if sums is None else jax.tree.map(lambda a, b: a + b, sums, new)
            self.progress.refresh()
        s = {k: float(v) for k, v in self.devices.first(sums).items()}
        return {
            'loss': s['loss'] / s['images'],
            'dice': s['dice'] / s['images'],
            'positive_dice': s['positive_dice'] / s['positives'] if s['positives'] else None,
        }

    def _averaged(self, train_state) -> dict[str, Any]:
        """The averaged weights with batch statistics of their own; nothing where there are none."""
        average = averaging.find_average(train_state.opt_state)
        if average is None:
            return {}
        params = average.average
        count = self.config.swa.bn_examples or len(self.dataset.train)
        # Whole batches only: a padded one would count some images twice.
        size = self._padded(min(self.config.batch_size, len(self.dataset.train)))
        chosen = np.random.default_rng([self.config.seed, 2]).permutation(self.dataset.train)
        chosen = chosen[: max(size, min(count, len(chosen)) // size * size)]
        chosen = np.resize(chosen, max(size, len(chosen)))
        total, batches = None, 0
        progress = tqdm(total=len(chosen) // size, desc='statistics of the average', unit='step')
        for batch in pipeline.evaluation_batches(self.dataset.records, chosen, size):
            stats = self.statistics_step(params, train_state.batch_stats, self.devices.shard(batch))
            total = stats if total is None else jax.tree.map(lambda a, b: a + b, total, stats)
            batches += 1
            jax.block_until_ready(total)
            progress.update()
        progress.close()
        return {
            'average_params': self.devices.first(params),
            'average_batch_stats': jax.tree.map(
                lambda s: (s / batches).astype(s.dtype), self.devices.first(total)
            ),
        }

    def _padded(self, size: int) -> int:
        """The next multiple of the number of devices."""
        return -(-size // self.devices.count) * self.devices.count
