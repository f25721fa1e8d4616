"""The optimizer as one optax transformation, from the configuration and the plan of the run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pneumojax.data.sampling import Plan
from pneumojax.training import averaging


def half_cosine(initial: float, final: float, steps: int, warmup: int = 0) -> optax.Schedule:
    """A linear rise over `warmup` updates, then half a cosine from `initial` to `final` (A).

    Args:
      initial, final: learning rates at the top and where the cosine ends, after the last update.
      steps: updates in all, warm-up included.
      warmup: updates of the rise.
    """

    def schedule(count):
        progress = jnp.clip((count - warmup) / max(1, steps - warmup), 0.0, 1.0)
        rate = final + (initial - final) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        return rate * jnp.minimum(1.0, (count + 1) / (warmup + 1))

    return schedule


def updates_done(plan: Plan, accumulate: int, epochs: float) -> int:
    """Updates after so many epochs (at most all): batches done, by those that make one update."""
    epochs = min(epochs, len(plan.epoch_ends))
    whole = int(epochs)
    ends = np.concatenate([[0], plan.epoch_ends])
    batches = ends[whole]
    if epochs > whole:
        batches += round((epochs - whole) * (ends[whole + 1] - ends[whole]))
    return int(batches) // accumulate


def learning_rate(config, plan: Plan) -> optax.Schedule:
    """The run's schedule, over updates."""
    optimizer = config.optimizer
    return half_cosine(
        optimizer.learning_rate,
        optimizer.final_learning_rate,
        updates_done(plan, optimizer.accumulate, config.num_epochs),
        updates_done(plan, optimizer.accumulate, optimizer.warmup_epochs),
    )


def freeze_encoder(until: int) -> optax.GradientTransformation:
    """Zeroes the encoder's updates for the first `until` updates."""

    def init(params):
        del params
        return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))

    def update(updates, state, params=None):
        del params
        factor = jnp.where(state.count < until, 0.0, 1.0)
        encoder = jax.tree.map(lambda u: u * factor.astype(u.dtype), updates['encoder'])
        return {**updates, 'encoder': encoder}, optax.ScaleByScheduleState(state.count + 1)

    return optax.GradientTransformation(init, update)


def _average(config, plan: Plan) -> optax.GradientTransformation:
    settings, accumulate = config.averaging, config.optimizer.accumulate
    start = updates_done(plan, accumulate, max(0, settings.start))
    if settings.kind == 'none':
        return optax.identity()
    if settings.kind == 'ema':
        return averaging.exponential_moving_average(settings.decay, start)
    if settings.every_steps:
        return averaging.stochastic_weight_average(
            lambda count: (count > start) & ((count - start) % settings.every_steps == 0)
        )
    epoch_ends = np.asarray(plan.epoch_ends) // accumulate
    members = jnp.asarray(epoch_ends[epoch_ends > start])
    return averaging.stochastic_weight_average(lambda count: jnp.any(members == count))


def make_optimizer(config, plan: Plan) -> optax.GradientTransformation:
    """Clipping, weight decay, the method, freezing, averaging; over accumulated gradients.

    Weight decay is added to the gradient for sgd and adam, as PyTorch does, and decoupled for
    adamw. The average comes last, where the updates are what the weights will really change by.
    """
    optimizer = config.optimizer
    rate = learning_rate(config, plan)
    clip = optax.clip_by_global_norm(optimizer.clip_norm) if optimizer.clip_norm else None
    decay = optax.add_decayed_weights(optimizer.weight_decay) if optimizer.weight_decay else None
    if optimizer.name == 'sgd':
        steps = [clip, decay, optax.sgd(rate, momentum=optimizer.momentum)]
    elif optimizer.name == 'adam':
        steps = [clip, decay, optax.adam(rate)]
    else:
        steps = [clip, optax.adamw(rate, weight_decay=optimizer.weight_decay)]
    frozen = updates_done(plan, optimizer.accumulate, optimizer.freeze_encoder_epochs)
    if frozen:
        steps.append(freeze_encoder(frozen))
    steps.append(_average(config, plan))
    chain = optax.chain(*(step for step in steps if step is not None))
    if optimizer.accumulate > 1:
        return optax.MultiSteps(chain, optimizer.accumulate).gradient_transformation()
    return chain
