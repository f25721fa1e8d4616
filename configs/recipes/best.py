"""This project's own recipe: 256 px, then 512 px.

    python -m pneumojax.main --config=configs/recipes/best.py:folds --config.data.root=DIR

All values are our own choice (I). They combine what set the winners apart from the paper: three
losses, a learning rate that falls from 1e-3 over each stage, mostly positives at first, averaged
weights with batch statistics of their own, two thresholds. docs/study.md has the experiments at
sizes that a CPU can train.

Expected: not known, as it has not been run at these sizes. `best_small` is what was measured.
Without ImageNet weights, pretrain on phantoms first (recipes/phantoms.py), or start from random
weights: --config.model.pretrained=
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Both stages."""
    config = base.get_config()
    config.name = 'best'
    config.model.pretrained = 'imagenet'  # I
    config.optimizer.name = 'adam'  # I
    config.optimizer.learning_rate = 1e-3  # I
    config.optimizer.final_learning_rate = 1e-5  # I
    config.loss.bce, config.loss.dice, config.loss.focal = (
        3.0,
        1.0,
        4.0,
    )  # I: 3:1:4, one of sneddy's
    config.augment.intensity = 0.5  # I
    config.augment.shift = 0.1  # I
    config.augment.scale = 0.15  # I
    config.augment.rotate = 15.0  # I
    config.augment.border = 'reflect'  # I
    config.augment.crop = 0.0  # I
    config.sampling.positive_share = (0.8, 0.6, 0.4)  # I: sneddy's, within each stage
    config.evaluation.rule = 'triplet'  # I
    config.evaluation.compare = True  # I: shows what SWA and flips gain
    config.stages = {
        'stage1': {
            'image_size': 256,  # I
            'batch_size': 16,  # I
            'num_epochs': 60,  # I
            'averaging': {'start': 50},  # I
        },
        'stage2': {
            'image_size': 512,  # I
            'batch_size': 8,  # I
            'num_epochs': 30,  # I
            'optimizer': {'learning_rate': 3e-4},  # I
            'sampling': {'positive_share': (0.6, 0.4)},  # I
            'averaging': {'start': 24},  # I
        },
    }
    return config
