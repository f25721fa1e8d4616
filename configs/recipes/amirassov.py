"""The fourth place (Amirassov, 0.8665) with this network: one ResNet34, windows of 512 in 768 px.

    python -m pneumojax.main --config=configs/recipes/amirassov.py:folds --config.data.root=DIR

W: the released code, its configuration and README (amirassov/kaggle-pneumothorax). I: our own
choice, where this program differs.

There is one stage. It trains on windows and predicts whole images. BatchNorm is frozen at
ImageNet's statistics, a second head says "no pneumothorax at all", and the share of positives falls
linearly from 0.8 to 0.22. This program differs in four ways:

- Theirs empties a mask where that head says so (above 0.4). Here the head's probability multiplies
  that of every pixel, and the rule is chosen as for any run.
- Their decoder has no BatchNorm. Ours has it, frozen at mean 0 and variance 1, which leaves a scale
  and an offset.
- Their label of a window is that of its image. Here it is what the window shows.
- Their cosine rises and falls every 8 epochs. Here it falls once.

Expected: 0.8629 to 0.8665 with 32 checkpoints of 8 folds on the whole competition data (W). This
command has not been run on that data: it needs a GPU with about 16 GB.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """The only stage."""
    config = base.get_config()
    config.name = 'amirassov'
    config.image_size = 768  # W
    config.batch_size = 8  # W
    config.num_epochs = 60  # W
    config.data.num_folds = 8  # W
    config.model.pretrained = 'imagenet'  # W
    config.model.normalization = 'imagenet'  # W
    config.model.frozen_batch_norm = True  # W
    config.model.classification_head = 'gate'  # W: the head; I: the product
    config.optimizer.name = 'adam'  # W
    config.optimizer.learning_rate = 7.5e-5  # W
    config.optimizer.final_learning_rate = 1e-6  # W
    config.optimizer.weight_decay = 1e-5  # W
    config.optimizer.clip_norm = 0.5  # W
    config.loss.bce = 2.7  # W: 0.9 (3 BCE + Dice) + 0.1 BCE of the image
    config.loss.dice = 0.9  # W
    config.loss.classification = 0.1  # W
    config.augment.window = 512  # W; the rest is as in base.py: A took it from the same source
    config.augment.crop = 0.0  # W
    config.augment.contrast = config.augment.brightness = 0.2  # W
    config.augment.gamma = (100, 100)  # W: it has none
    # W: 0.8 - (0.8 - 0.22) / epochs x epoch, for each epoch.
    config.sampling.positive_share = tuple(round(0.8 - 0.58 * i / 60, 4) for i in range(60))
    config.averaging.start = config.get_ref('num_epochs') - 4  # I: their 4 best checkpoints
    config.evaluation.batch_size = 4  # I
    return config
