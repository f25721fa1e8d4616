"""Pretraining on drawn radiographs, for when ImageNet weights are not available.

    python -m pneumojax.main --config=configs/recipes/phantoms.py

Then any other recipe can start from its weights, with folds too (no phantom is a held-out patient):

    python -m pneumojax.main --config=configs/recipes/best.py --config.data.root=DIR \\
        --config.init_from=runs/phantoms

All values are our own choice (I). The network must be the same as in the recipe: channels, width,
stage sizes, normalisation and classification head.

Expected: docs/study.md says what it gained on 984 real images.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """One run on 4,000 phantoms at 128 px."""
    config = base.get_config()
    config.name = 'phantoms'
    config.image_size = 128  # I
    config.num_epochs = 10  # I
    config.data.root = 'data/phantoms4000'  # I
    config.data.phantoms.num_images = 4000  # I
    config.data.phantoms.size = 256  # I
    config.data.phantoms.positive_share = 0.5  # I: empty drawings teach nothing
    config.data.num_folds = 20  # I: few held-out images are enough
    config.optimizer.name = 'adam'  # I
    config.augment.intensity = 0.5  # I: this and the following as in best.py
    config.augment.shift = 0.1  # I
    config.augment.scale = 0.15  # I
    config.augment.rotate = 15.0  # I
    config.augment.border = 'reflect'  # I
    config.augment.crop = 0.0  # I
    config.averaging.start = config.get_ref('num_epochs') - 4  # I
    return config
