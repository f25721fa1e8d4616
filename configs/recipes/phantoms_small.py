"""Pretraining on drawn radiographs for `best_small`: its network, 128 px.

    python -m pneumojax.main --config=configs/recipes/phantoms_small.py

It takes half an hour on one CPU core. All values are our own choice (I).

Expected: a Dice of 0.84 on the positives of 200 held-out phantoms, at the fixed threshold 0.5 (last
epoch). docs/study.md says what it gained on 984 real images.
"""

import ml_collections

from configs.recipes import phantoms


def get_config() -> ml_collections.ConfigDict:
    """`recipes/phantoms.py` for a smaller network, in smaller batches."""
    config = phantoms.get_config()
    config.name = 'phantoms_small'
    config.batch_size = 8  # I: twice the updates
    config.num_epochs = 8  # I
    config.model.width = 32  # I: a quarter of the computation
    config.model.channels = 1  # I: nothing is known about colours
    config.model.normalization = 'imagenet_grey'  # I: about zero mean
    return config
