"""Both stages on 120 drawn images in seconds: what the drivers of this folder kill."""

from configs import base


def get_config():
    """Two stages of a network as narrow as it goes; drawing, decoding, training, evaluation."""
    config = base.get_config()
    config.name = 'tiny'
    config.data.phantoms.num_images = 120
    config.data.phantoms.size = 96
    config.data.phantoms.positive_share = 0.4
    config.data.num_folds = 4
    config.batch_size = 8
    config.log_every_steps = 1
    config.model.channels, config.model.width = 1, 4
    config.model.stage_sizes = (1, 1, 1, 1)
    config.optimizer.name, config.optimizer.learning_rate = 'adam', 1e-2
    for key in ('warp', 'affine', 'crop', 'intensity'):  # compiles in a quarter of the time
        config.augment[key] = 0.0
    config.evaluation.batch_size, config.evaluation.bootstrap = 8, 200
    config.stages = {
        'stage1': {'image_size': 32, 'num_epochs': 3, 'averaging': {'start': 1}},
        'stage2': {'image_size': 48, 'num_epochs': 3, 'averaging': {'start': 1}},
    }
    return config
