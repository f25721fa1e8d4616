"""Pretraining without labels on any folder of radiographs, for the network of `best_small`.

    python -m pneumojax.main --config=configs/recipes/pretrain.py --config.data.root=DIR
    python -m pneumojax.main --config=configs/recipes/best_small.py:folds \\
        --config.data.root=LABELLED --config.init_from=runs/pretrain

Three quarters of each image are hidden, in small blocks, and the network restores them;
docs/how-to/pretrain.md has more. All values are our own choice (I).

Expected: on 3,205 images a restoration loss of 0.17, in 11 minutes of one CPU core.
docs/study.md says what that gains and what not.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """One run at 128 px."""
    config = base.get_config()
    config.name = 'pretrain'
    config.image_size = 128  # I
    config.num_epochs = 4  # I
    config.data.root = 'data/unlabelled'  # no masks and no CSV are needed
    config.data.num_folds = 20  # I: few held-out images are enough
    config.model.width = 32  # I: this and the following as in phantoms_small.py
    config.model.channels = 1  # I
    config.model.normalization = 'imagenet_grey'  # I
    config.optimizer.name = 'adam'  # I
    config.loss.bce = config.loss.dice = 0.0  # I: there are no masks
    config.loss.restoration = 1.0  # I
    config.augment.hide = 0.75  # I: better than half of it in blocks of 16 px (docs/study.md)
    # I: flips only, so that what is to be restored is what radiographs look like
    config.augment.intensity = config.augment.warp = config.augment.affine = 0.0
    config.augment.crop = 0.0  # I
    config.averaging.start = config.get_ref('num_epochs') - 2  # I
    return config
