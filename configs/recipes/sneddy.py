"""The winner's recipe (Aimoldin, 0.8679) on this network: 512 px, then 1024 px.

    python -m pneumojax.main --config=configs/recipes/sneddy.py --config.data.root=DIR

W: the released code and configurations (sneddy/pneumothorax-segmentation, those of AlbuNet, a
ResNet34 too, whose decoder has no BatchNorm). I: ours, where a value is not known or this program
has no such thing: their plateau and cyclic rates are half-cosines here, the three best checkpoints
a mean of the last epochs' weights. BCE, Dice and focal loss 1:1:1, the share of positives sliding
from 0.8, the encoder frozen when the second stage begins, the triplet rule.

Expected: their single ResNet34 on one fold validated at 0.850 to 0.862 on the whole competition
data (W). This command on it has not been run: it wants a GPU with about 16 GB. On 984 of its images
at small sizes see docs/study.md.
"""

from configs import base


def get_config():
    """Both stages."""
    config = base.get_config()
    config.name = 'sneddy'
    config.model.pretrained = 'imagenet'  # W
    config.optimizer.name = 'adam'  # W
    config.optimizer.weight_decay = 5e-6  # W
    config.optimizer.clip_norm = 0.1  # W
    config.loss.bce = config.loss.dice = config.loss.focal = 1.0  # W: also 3:1:4 and 2:1:2
    config.loss.smooth = 1e-5  # W
    config.augment.affine = 0.5  # W: as are the probabilities of flip, tone and distortion
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
            'num_epochs': 50,  # W: at most, stopped early
            'optimizer': {
                'learning_rate': 1e-4,  # W: then a tenth where it stalls
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
