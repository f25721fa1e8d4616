"""The same images, split, order and epochs through PyTorch, with the authors' recipe.

    python -m benchmarks.torch_peer --config=configs/stage1.py --config.model.pretrained= \\
        --config.data.root=DIR --config.image_size=128 --config.num_epochs=40 \\
        --config.model.dtype=bfloat16 --workdir=runs/peer --fold=0

`--fold=0` is one fold, in runs/peer/fold0; `--fold=all` is the rest of them and the figures out of
fold.

What a user would otherwise pick: segmentation_models_pytorch's U-Net and a plain training loop. It
reads the configuration that `pneumojax.main` reads, and trains as the authors' released code does
(A) where the two differ: albumentations on the CPU (see `torch_augment`), and as SWA the equal mean
of the last epochs' weights *and* batch statistics, which are not computed anew. Our cache and our
plan of the epochs make images, split and order equal. What it does not do is refused.

The trained network is converted (tests prove that the same weights give the same logits) and
written as a checkpoint of a run directory, so the figures come from the same code as ours, TTA,
rule and intervals included: `--mode=evaluate`, `predict` and all else work on it. Beside it:
last.safetensors and average.safetensors, which smp loads, and peer.json, what it ran on.

`--config.model.dtype=bfloat16` trains under autocast. On two cores with AVX512-BF16, batches of 16
in channels_last took 0.34 s a step at 128 px and 1.29 s at 256 px, against 0.58 s and 2.41 s in
float32. `--config.init_from=RUN` starts from another peer's (or our) run, for a second stage; a
configuration of stages is trained stage by stage.
"""

import pathlib
import time

import jax
import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from benchmarks import torch_augment, torch_unet
from benchmarks.report import describe_machine, versions
from pneumojax import config as config_lib
from pneumojax import flags
from pneumojax.data import dataset as dataset_lib
from pneumojax.data import pipeline
from pneumojax.errors import UsageError
from pneumojax.experiments import stages
from pneumojax.launch import launch
from pneumojax.models import pretrained
from pneumojax.models.normalize import normalize
from pneumojax.runs import layout
from pneumojax.runs.run import Run
from pneumojax.system.progress import bar, log
from pneumojax.training import initialization, loop, optimizer
from pneumojax.training.metrics_log import MetricsLog

# Values of a configuration that this loop does not have.
UNKNOWN = {
    'model.encoder': 'resnet34', 'model.frozen_stages': 0, 'model.frozen_batch_norm': False,
    'model.classification_head': 'none', 'augment.window': 0,
    'loss.dice_reduction': 'batch', 'optimizer.accumulate': 1,
    'optimizer.freeze_encoder_epochs': 0, 'averaging.every_steps': 0,
}  # fmt: skip


def main(argv: list[str]) -> int:
    """Trains what is not trained, folds and stages too; the table of `pneumojax.main`."""
    config = flags.CONFIG.value
    if len(argv) > 1 or config is None or len(flags.WORKDIR.value) != 1:
        raise UsageError('give --config=configs/NAME.py and one --workdir=DIR, and nothing else')
    workdir = pathlib.Path(flags.WORKDIR.value[0])
    if flags.FOLD.value is not None:
        config, workdir = layout.select_fold(config, workdir, flags.FOLD.value)
    config_lib.check(config)
    for part, _ in layout.runs(config, workdir):
        refuse(part)
    train_all(config, workdir)
    stages.evaluate(config, workdir)
    return 0


def train_all(config, workdir: pathlib.Path) -> None:
    """Trains a run, or every fold and stage below it."""
    parts = list(layout.children(config, workdir))
    if not parts:
        train(config, Run(workdir))
        return
    Run(workdir).start(config)
    for part, folder in parts:
        train_all(part, folder)


def refuse(config) -> None:
    """UsageError for what this training does not do."""
    for key, value in UNKNOWN.items():
        if config_lib.get(config, key) != value:
            raise UsageError(f'config.{key}: the peer knows only {value!r}')
    if config.averaging.kind == 'ema':
        raise UsageError("config.averaging.kind: the peer knows only 'mean' and 'none'")


def train(config, run: Run) -> None:
    """Trains to the last epoch and writes the checkpoint; a run cut short begins anew."""
    dataset = dataset_lib.load(config)
    run.start(config)
    loop.keep_split(run, dataset)
    if run.checkpoints.latest_step() is not None:
        log.info('%s is complete', run.path)
        return
    plan = loop.make_plan(config, dataset)
    run.forget_metrics_after(-1)
    torch.manual_seed(config.seed)
    network = make_network(config, dataset)
    optimize, rates = make_optimizer(config, plan, network)
    augment = torch_augment.make_augment(config)
    average, members, since = None, 0, time.monotonic()
    batches = pipeline.train_batches(dataset.records, dataset.train, plan)
    shown = bar(desc=config.name, total=plan.total_steps, unit='step')
    with MetricsLog(run) as metrics, shown:
        for step, batch in enumerate(batches):
            for group in optimize.param_groups:
                group['lr'] = float(rates[step])
            values = train_step(config, network, optimize, *to_tensors(config, augment, batch))
            shown.update()
            epoch = plan.epoch(step)
            if (step + 1) % config.log_every_steps == 0 or step + 1 == plan.epoch_ends[epoch]:
                values |= {'learning_rate': float(rates[step])}
                metrics.write(step=step + 1, epoch=epoch, split='train', **values)
            if step + 1 == plan.epoch_ends[epoch] and epoch + 1 > config.averaging.start:
                members += 1
                average = running_mean(average, state(network), members)
    seconds = time.monotonic() - since
    states = {'': state(network)}
    if config.averaging.kind != 'none' and members:
        states['average_'] = average
    save(config, run, plan.total_steps, states)
    run.write_json('peer.json', {
        'network': torch_unet.origin(network),
        'augmentation': augment.name,
        'averaged_epochs': members,
        'seconds': round(seconds, 1),
        'images_per_second': round(plan.total_steps * plan.batch_size / seconds, 2),
        'machine': describe_machine(),
        'versions': versions(),
    })  # fmt: skip


def make_network(config, dataset) -> nn.Module:
    """With random weights as smp draws them, or those that the configuration starts from."""
    model = config.model
    network = torch_unet.make_unet(model.width, model.channels, tuple(model.stage_sizes))
    if config.init_from or model.pretrained:
        variables = initialization.initial_variables(config, dataset.split_ids()['validation'])
        named = pretrained.to_torch(variables)
        network.load_state_dict({name: torch.from_numpy(v) for name, v in named.items()})
    elif torch_unet.origin(network) != 'segmentation_models_pytorch':
        draw_weights(network)
    return network.to(memory_format=torch.channels_last)


def draw_weights(network: nn.Module) -> None:
    """As smp (and torchvision's ResNet34) draw them."""
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        if name.startswith('encoder'):
            nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
        elif name.startswith('decoder'):
            nn.init.kaiming_uniform_(module.weight, mode='fan_in', nonlinearity='relu')
        else:
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)


def make_optimizer(config, plan, network):
    """PyTorch's optimizer, and the learning rate of every step: ours, a half-cosine (A)."""
    wanted = config.optimizer
    shared = {'lr': wanted.learning_rate, 'weight_decay': wanted.weight_decay}
    kinds = {
        'sgd': lambda p: torch.optim.SGD(p, momentum=wanted.momentum, **shared),
        'adam': lambda p: torch.optim.Adam(p, **shared),
        'adamw': lambda p: torch.optim.AdamW(p, **shared),
    }
    schedule = optimizer.learning_rate(config, plan)
    rates = np.asarray(jax.vmap(schedule)(np.arange(plan.total_steps)))
    return kinds[wanted.name](network.parameters()), rates


def to_tensors(config, augment: torch_augment.Augment, batch) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 [B, S, S] -> augmented images [B, C, S, S], normalised, and masks [B, 1, S, S]."""
    pairs = [augment.call(i, m) for i, m in zip(batch['image'], batch['mask'], strict=True)]
    images, masks = (np.stack(part) for part in zip(*pairs, strict=True))
    inputs = normalize(images[..., None], config.model.normalization, config.model.channels)
    inputs = torch.from_numpy(np.array(inputs)).permute(0, 3, 1, 2)  # channels_last as it lies
    return inputs, torch.from_numpy(masks[:, None].astype(np.float32))


def loss_of(config, logits, masks) -> dict[str, torch.Tensor]:
    """BCE and focal loss, means over pixels, and soft Dice over the whole batch (A, W)."""
    weights = config.loss
    each = functional.binary_cross_entropy_with_logits(logits, masks, reduction='none')
    focal = (each * (1 - torch.exp(-each)) ** weights.focal_gamma).mean()
    bce = each.mean()
    p = torch.sigmoid(logits)
    dice = (2 * (p * masks).sum() + weights.smooth) / (p.sum() + masks.sum() + weights.smooth)
    loss = weights.bce * bce + weights.dice * (1 - dice) + weights.focal * focal
    return {'loss': loss, 'bce': bce, 'dice_loss': 1 - dice, 'focal': focal}


def train_step(config, network, optimize, images, masks) -> dict[str, float]:
    """One update in place; the loss before it."""
    network.train()
    with torch.autocast('cpu', torch.bfloat16, enabled=config.model.dtype == 'bfloat16'):
        logits = network(images)
    values = loss_of(config, logits.float(), masks)
    optimize.zero_grad()
    values['loss'].backward()
    if config.optimizer.clip_norm:
        nn.utils.clip_grad_norm_(network.parameters(), config.optimizer.clip_norm)
    optimize.step()
    return {name: value.item() for name, value in values.items()}


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of weights and batch statistics, by smp's names."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def running_mean(mean, new, members: int):
    """The mean of `members` states, the last of which is `new`; counters are the last one's."""
    if mean is None:
        return new
    return {
        name: mean[name] + (value - mean[name]) / members if value.is_floating_point() else value
        for name, value in new.items()
    }


def save(config, run: Run, step: int, states) -> None:
    """Writes each state as safetensors, and all of them as one checkpoint of ours."""
    items, model = {}, config.model
    for prefix, tensors in states.items():
        path = run / f'{prefix.rstrip("_") or "last"}.safetensors'
        save_file({name: t.contiguous() for name, t in tensors.items()}, path)
        variables = pretrained.load_smp_unet(
            path, channels=model.channels, width=model.width, stage_sizes=tuple(model.stage_sizes)
        )
        items |= {prefix + name: variables[name] for name in ('params', 'batch_stats')}
    with run.checkpoints.writer(keep=1) as checkpointer:
        done = {'epoch': config.num_epochs, 'num_epochs': config.num_epochs}
        checkpointer.save_checkpointables(step, items, custom_metadata=done)


if __name__ == '__main__':
    launch(main)
