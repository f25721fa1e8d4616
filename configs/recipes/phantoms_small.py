"""Pretraining on drawn radiographs for `best_small`: its network, 128 px.

    python -m pneumojax.main --config=configs/recipes/phantoms_small.py

Half an hour on one core of a CPU. All values are our own choice (I).

Expected: 0.84 on positive phantoms of 200 held out, at the fixed threshold 0.5 (last epoch). What
it was worth on 984 real images: docs/study.md.
"""

from configs.recipes import phantoms


def get_config():
    """`recipes/phantoms.py` for a smaller network, in smaller batches."""
    config = phantoms.get_config()
    config.name = 'phantoms_small'
    config.batch_size = 8  # I: twice the updates
    config.num_epochs = 8  # I
    config.model.width = 32  # I: a quarter of the work
    config.model.channels = 1  # I: nothing is known about colours
    config.model.normalization = 'imagenet_grey'  # I: about zero mean
    return config
