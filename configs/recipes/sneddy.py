"""The winner's recipe (Aimoldin, 0.8679) with this network: 512 px, then 1024 px.

    python -m pneumojax.main --config=configs/recipes/sneddy.py --config.data.root=DIR

W: the released code and configurations (sneddy/pneumothorax-segmentation), those of AlbuNet, also a
ResNet34, whose decoder has no BatchNorm. I: our own choice, where a value is not known or this
program differs.

BCE, Dice and focal loss are weighted 1:1:1, the share of positives falls from 0.8, the encoder is
frozen at the start of the second stage, and masks are made by the triplet rule. Where theirs has
plateau and cyclic learning rates, this has a cosine schedule; where theirs has the three best
checkpoints, this has the mean of the last epochs' weights.

Expected: their single ResNet34 had a validation score of 0.850 to 0.862 on one fold of the whole
competition data (W). This command has not been run on that data: it needs a GPU with about 16 GB.
docs/study.md has results on 984 of its images at small sizes.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Both stages."""
    config = base.get_config()
    config.name = 'sneddy'
    config.model.pretrained = 'imagenet'  # W
    config.optimizer.name = 'adam'  # W
    config.optimizer.weight_decay = 5e-6  # W
    config.optimizer.clip_norm = 0.1  # W
    config.loss.bce = config.loss.dice = config.loss.focal = 1.0  # W: also 3:1:4 and 2:1:2
    config.loss.smooth = 1e-5  # W
    config.augment.affine = 0.5  # W; so are the defaults of flip, intensity and warp
    config.augment.shift = 0.0625  # W
    config.augment.scale = 0.1  # W
    config.augment.rotate = 45.0  # W
    config.augment.border = 'reflect'  # W
    config.augment.crop = 0.0  # W
    config.evaluation.rule = 'triplet'  # W
    config.evaluation.batch_size = 4  # I
    config.stages = {
        'stage1': {
            'image_size': 512,  # W
            'batch_size': 4,  # I: 2 at 1024
            'num_epochs': 50,  # W: at most; they stop early
            'optimizer': {
                'learning_rate': 1e-4,  # W: then a tenth of it on a plateau
                'final_learning_rate': 1e-6,  # I
            },
            'sampling': {'positive_share': (0.8,)},  # W: part 0
            'averaging': {'start': 47},  # I: the last 3; they keep their 5 best
        },
        'stage2': {
            'image_size': 1024,  # W
            'batch_size': 2,  # W
            'num_epochs': 50,  # W
            'optimizer': {
                'learning_rate': 1e-5,  # W
                'final_learning_rate': 1e-7,  # W
                'freeze_encoder_epochs': 2,  # I: "frozen at first"
            },
            'sampling': {'positive_share': (0.6, 0.4)},  # W: the parts after the first
            'averaging': {'start': 47},  # I: the last 3; they average their 3 best
        },
    }
    return config
