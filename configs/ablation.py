"""What each part of the method contributes, on drawn radiographs: seven minutes on two cores.

    python -m pneumojax.main --config=configs/ablation.py --mode=ablate

Compares two stages (32, then 64 px) with a single one at equal cost, under three seeds, and
removes the parts of prediction one by one. The table is runs/ablation/ablation.md, with a picture
beside it. All values are our own choice (I), made for two CPU cores. Results on phantoms say
nothing about the method on real radiographs.
"""

import ml_collections

from configs import demo


def get_config() -> ml_collections.ConfigDict:
    """The demo's network and learning rates on smaller images, with more of them held out."""
    config = demo.get_config()
    config.name = 'ablation'
    config.data.root = 'data/ablation'
    config.data.phantoms.num_images = 600
    config.data.num_folds = 3  # I: 200 held out; fewer would make the intervals wider
    config.evaluation.compare = False
    config.evaluation.every_epochs = 1  # I: the points of the learning curves
    config.evaluation.batch_size = 40
    config.evaluation.ablation_seeds = 3
    config.stages = {
        'stage1': {'image_size': 32, 'num_epochs': 16, 'averaging': {'start': 12}},
        'stage2': {'image_size': 64, 'num_epochs': 10, 'averaging': {'start': 7}},
    }
    return config
