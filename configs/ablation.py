"""What each part of the method is worth, on drawn radiographs: seven minutes on two cores.

    python -m pneumojax.main --config=configs/ablation.py --mode=ablate

Two stages (32, then 64 px) against a single one at equal cost, under three seeds, and the parts of
prediction taken away one by one; the table is runs/ablation/ablation.md, the picture beside it.
All values are chosen for two CPU cores (I); phantoms say nothing about the method on radiographs.
"""

from configs import demo


def get_config():
    """The demo's network and rates on smaller images, with more of them held out."""
    config = demo.get_config()
    config.name = 'ablation'
    config.data.root = 'data/ablation'
    config.data.phantoms.num_images = 600
    config.data.num_folds = 3  # 200 held out: the fewer, the wider the intervals
    config.evaluation.compare = False
    config.evaluation.every_epochs = 1  # the points of the learning curves
    config.evaluation.batch_size = 40
    config.evaluation.ablation_seeds = 3
    config.stages = {
        'stage1': {'image_size': 32, 'num_epochs': 16, 'averaging': {'start': 12}},
        'stage2': {'image_size': 64, 'num_epochs': 10, 'averaging': {'start': 7}},
    }
    return config
