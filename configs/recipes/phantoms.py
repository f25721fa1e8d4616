"""Pretraining on drawn radiographs, where no ImageNet weights are to be had.

    python -m pneumojax.main --config=configs/recipes/phantoms.py

Then any other recipe starts from it, folds too (the phantoms are nobody's held-out patients):

    python -m pneumojax.main --config=configs/recipes/best.py --config.data.root=DIR \\
        --config.init_from=runs/phantoms

All values are our own choice (I). The network must be that of the recipe: channels, width, stages,
normalisation and image head.

Expected: docs/study.md has what it was worth on 984 real images.
"""

from configs import base


def get_config():
    """One run on 4,000 phantoms at 128 px."""
    config = base.get_config()
    config.name = 'phantoms'
    config.image_size = 128  # I
    config.num_epochs = 10  # I
    config.data.root = 'data/phantoms4000'  # I
    config.data.phantoms.num_images = 4000  # I
    config.data.phantoms.size = 256  # I
    config.data.phantoms.positive_share = 0.5  # I: nothing is gained by empty drawings
    config.data.num_folds = 20  # I: a few to look at
    config.optimizer.name = 'adam'  # I
    config.augment.intensity = 0.5  # I: from here on as in best.py
    config.augment.shift = 0.1  # I
    config.augment.scale = 0.15  # I
    config.augment.rotate = 15.0  # I
    config.augment.border = 'reflect'  # I
    config.augment.crop = 0.0  # I
    config.averaging.start = config.get_ref('num_epochs') - 4  # I
    return config
