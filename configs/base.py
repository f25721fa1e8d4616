"""Every key, its default and what it does. Other configs start from this one.

Values carry their source where they have one (docs/provenance.md tells the whole story):
P the paper (arXiv 2009.02805), A the same authors' later released code (Ens4B-UNet),
K the public Kaggle kernel that code grew from, W a winning solution, I inferred or our own choice.
Any value can be overridden: --config.optimizer.learning_rate=3e-4 --config.tta.flips="()".
"""

import ml_collections

from pneumojax.config import Config


def get_config() -> ml_collections.ConfigDict:
    """The defaults."""
    config = ml_collections.ConfigDict()
    config.name = 'base'  # the run directory is runs/<name> unless --workdir says otherwise
    config.seed = 0  # of initial weights, order of images and augmentation
    config.image_size = 256  # side of the square that images are fitted into, pixels
    config.batch_size = 16  # images per step, over all devices and processes together
    config.num_epochs = 80  # passes over the training images (or samples of them, see sampling)
    # Run directory of the earlier stage (or of a converted network) to take all weights from;
    # empty: start from model.pretrained.
    config.init_from = ''
    config.init_weights = (
        'average'  # of init_from: 'average' (SWA; 'last' if it has none) or 'last'
    )
    config.log_every_steps = 20  # steps between two lines of metrics.jsonl

    config.data = data = ml_collections.ConfigDict()
    # Folder with DICOMs anywhere below it and Kaggle's CSV; or one's own images with masks of the
    # same names, see docs/how-to/own_images.md.
    data.root = 'data/siim'
    data.masks = ''  # one's own: folder of the PNG masks; empty: <root>/masks
    # One's own: CSV ImageId[,PatientId][,Pneumothorax][,split][,fold]; empty: <root>/table.csv if
    # there.
    data.table = ''
    data.patients = ''  # CSV ImageId,PatientId; empty: <root>/patients.csv if there, else by image
    data.cache = 'runs/cache'  # decoded images are kept here, one folder per data set and size
    # The validation fold; -1: each in turn, in folders fold0, fold1, ... below the run directory
    # (for short: --config=configs/NAME.py:folds, or NAME.py:fold3 for one of these).
    data.fold = 0
    data.num_folds = 5  # patient-disjoint folds
    data.split_seed = 0  # of the assignment to folds; the same for all stages of one experiment
    data.num_examples = 0  # use only so many images, drawn with split_seed; 0: all
    data.workers = 0  # processes that read records; 0: threads of the main process
    # Every device keeps all images of this size (uint8; 12,047 at 512 px are 3.3 GiB) instead of
    # receiving each batch: the same bits, for hosts that cannot feed their devices.
    data.on_device = False
    data.phantoms = ml_collections.ConfigDict()
    data.phantoms.num_images = 0  # above 0: draw so many phantoms into data.root first
    data.phantoms.size = 512  # side of a drawn image, pixels
    data.phantoms.seed = 0  # of the drawing; image i is the same whatever the number
    data.phantoms.positive_share = 0.22  # SIIM's: 2,669 of 12,047

    config.model = model = ml_collections.ConfigDict()
    # 'imagenet', a file (torchvision, timm or Hugging Face ResNet34; .safetensors or .pth), or
    # empty for random weights.
    model.pretrained = ''
    model.channels = 3  # A: grey repeated to three channels; 1 sums the stem's kernel instead
    # 'unit': x/255 only (A); 'imagenet': its mean and std per channel; 'imagenet_grey': one pair.
    model.normalization = 'unit'
    model.width = 64  # channels of the first stage; 64 is ResNet34
    model.stage_sizes = (3, 4, 6, 3)  # blocks per stage; these are ResNet34's
    # Of the computation: 'float32' or 'bfloat16'; parameters, statistics and loss stay float32.
    # 'float64' is for comparing machines: all of it, with JAX_ENABLE_X64=1 in the environment.
    model.dtype = 'float32'
    # W (amirassov): normalise by the statistics it starts with, in training too; they never change.
    model.frozen_batch_norm = False
    # W (amirassov): a second output, whether the image shows any pneumothorax. 'auxiliary': trained
    # beside (see loss.classification), ignored in prediction; 'gate': in prediction its probability
    # also multiplies that of every pixel (I; he empties masks below a threshold); 'none'.
    model.classification_head = 'none'

    config.optimizer = optimizer = ml_collections.ConfigDict()
    optimizer.name = 'sgd'  # A: the ResNet50 notebook; 'adam' or 'adamw' elsewhere
    optimizer.learning_rate = 1e-3  # A: where the half-cosine starts
    optimizer.final_learning_rate = 1e-5  # A: where it ends
    optimizer.warmup_epochs = 0.0  # linear from 0 before the half-cosine; A has none
    optimizer.momentum = 0.9  # A; of sgd
    optimizer.weight_decay = 0.0  # adds to the gradient (sgd, adam) or shrinks weights (adamw)
    optimizer.clip_norm = 0.0  # largest global norm of the gradient; 0: unclipped
    optimizer.accumulate = 1  # batches whose gradients are averaged into one update
    optimizer.freeze_encoder_epochs = 0  # the encoder keeps its weights for the first epochs

    config.loss = loss = ml_collections.ConfigDict()
    loss.bce = 1.0  # A: weight of binary cross-entropy, mean over pixels
    loss.dice = 1.0  # A: weight of soft Dice
    # A: 'batch', one ratio for the whole batch; 'image': the mean of one per image.
    loss.dice_reduction = 'batch'
    loss.smooth = 1.0  # A: added to numerator and denominator of soft Dice
    loss.focal = 0.0  # weight of focal loss, mean over pixels (W: sneddy's sums are 1:1:1 to 3:1:4)
    loss.focal_gamma = 2.0  # W: how much less a pixel counts that is right already
    # Weight of the classification head's cross-entropy; needs model.classification_head.
    loss.classification = 0.0

    # On the device, one draw per image and step. L: albumentations' default, left in place by A.
    config.augment = augment = ml_collections.ConfigDict()
    augment.flip = 0.5  # A: probability of a left-right flip
    augment.vertical_flip = 0.0  # probability of upside down; no radiograph is
    augment.intensity = 0.3  # A: probability of one of contrast, gamma, brightness
    augment.contrast = 0.2  # L: factor from 1 - 0.2 to 1 + 0.2
    augment.gamma = (80, 120)  # L: exponent, per cent
    augment.brightness = 0.2  # L: offset of at most 0.2 of the range
    augment.warp = 0.3  # A: probability of one of elastic, grid, optical distortion
    augment.elastic_alpha = 120.0  # A: displacement before smoothing, pixels at 512
    augment.elastic_sigma = 6.0  # A: its smoothing, pixels at 512
    augment.elastic_affine = 3.6  # A: three corners move by up to this, pixels at 512
    augment.grid_steps = 5  # L: cells a side
    augment.grid_distort = 0.3  # L: cells read 1 - 0.3 to 1 + 0.3 of their size
    augment.optical_distort = 2.0  # A: largest |k| of the lens
    augment.optical_shift = 0.5  # A: largest shift of its centre, pixels at 512
    augment.affine = 0.5  # A: probability of shift-scale-rotate (1 in one of its four notebooks)
    augment.shift = 0.2  # A: at most this share of the size
    augment.scale = 0.2  # A: from 1 - 0.2 to 1 + 0.2
    augment.rotate = 20.0  # A: degrees at most, both ways
    augment.border = 'constant'  # A: beyond a shifted edge: 'constant' (black) or 'reflect'
    augment.crop = 0.25  # A: probability of a crop resized to full size (in one of its notebooks)
    augment.crop_min = 412 / 512  # A: its smallest side, as a share
    # Side of the window cut from the augmented image, pixels (W: amirassov has 512 of 768); 0:
    # whole images, as validation, prediction and the average's batch statistics see them always.
    augment.window = 0
    augment.window_on_lesion = 0.0  # I: share of windows placed over a pixel of the lesion if any

    config.sampling = sampling = ml_collections.ConfigDict()
    # Share of positive images, one value per equal part of the epochs, such as (0.8, 0.6, 0.4):
    # an epoch is then all positives and as many random negatives as the share leaves (W, sneddy).
    # Empty: every image once an epoch (A).
    sampling.positive_share = ()

    config.averaging = averaging = ml_collections.ConfigDict()
    averaging.kind = 'mean'  # P has SWA. 'mean': equal mean of weights; 'ema': exponential; 'none'
    averaging.start = config.get_ref('num_epochs') - 13  # K: epochs done before averaging starts
    # Updates between two members of the mean; 0: the end of each epoch (K).
    averaging.every_steps = 0
    averaging.decay = 0.999  # of the EMA, per update
    # Training images for the averaged weights' batch statistics; 0: all; -1: no such step, the last
    # weights' statistics are taken over (A, K).
    averaging.bn_examples = 0

    config.tta = tta = ml_collections.ConfigDict()
    tta.flips = ('horizontal',)  # A: probabilities are averaged with those of the flipped image

    config.evaluation = evaluation = ml_collections.ConfigDict()
    evaluation.batch_size = 16  # images per prediction step
    evaluation.every_epochs = 1  # epochs between two looks at the validation images; 0: none
    evaluation.weights = 'average'  # which weights are reported: 'average' (if any) or 'last'
    # Chosen on held-out images: 'single', one threshold and a smallest area (A); 'triplet', two
    # thresholds (W, sneddy). 'half': 0.5 at every pixel, nothing is chosen (I): what a network
    # marks of itself, where the best of all rules is to mark next to nothing.
    evaluation.rule = 'single'
    # Also try rules that drop connected regions below an area (W: sneddy, 100 px).
    evaluation.regions = False
    evaluation.compare = (
        False  # also score the last weights, and without flips: what each part gains
    )
    evaluation.ablation_seeds = 3  # trainings of each kind that --mode=ablate compares
    evaluation.bootstrap = 2000  # resamples behind each 95 % interval

    config.checkpoint = checkpoint = ml_collections.ConfigDict()
    checkpoint.every_epochs = 1  # epochs between two checkpoints
    checkpoint.keep = 2  # newest checkpoints that stay

    # Stages run one after another by one command, each in its own folder below the run directory:
    # name -> the keys it changes, in the order of their names. Empty: this config is one run.
    config.stages = {}
    return Config(config)
