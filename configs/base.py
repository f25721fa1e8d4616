"""Every key, its default and what it does. The other configs start from this one.

A letter says where a value comes from (docs/provenance.md has the whole story): P the paper (arXiv
2009.02805), A code that its authors released later (Ens4B-UNet), K the public Kaggle kernel that
this code grew from, W a winning solution, L a default of albumentations that A uses, I inferred or
our own choice.

Override any value on the command line:
--config.optimizer.learning_rate=3e-4 --config.tta.flips="()".
"""

import ml_collections

from pneumojax.config import Config


def get_config() -> ml_collections.ConfigDict:
    """The defaults."""
    config = ml_collections.ConfigDict()
    config.name = 'base'  # the run directory is runs/<name> unless --workdir names another
    config.seed = 0  # of the initial weights, the order of images and the augmentation
    config.image_size = 256  # side of the square that each image is fitted into, pixels
    config.batch_size = 16  # images per step, over all devices and processes together
    config.num_epochs = 80  # passes over the training images (or over samples, see sampling)
    # Run directory of the earlier stage (or of a converted network) to take all weights from;
    # empty: start from model.pretrained.
    config.init_from = ''
    # Which weights of init_from: 'average' (as 'last' if that run has no average) or 'last'.
    config.init_weights = 'average'
    config.log_every_steps = 20  # steps between two lines of metrics.jsonl

    config.data = data = ml_collections.ConfigDict()
    # Folder with DICOMs anywhere below it and Kaggle's CSV; or your own images, with masks of the
    # same names, see docs/how-to/own_images.md.
    data.root = 'data/siim'
    data.masks = ''  # your own images: folder of the PNG masks; empty: <root>/masks
    # Your own images: CSV ImageId[,PatientId][,Pneumothorax][,split][,fold]; empty:
    # <root>/table.csv if it exists.
    data.table = ''
    # CSV ImageId,PatientId; empty: <root>/patients.csv if it exists, else split by image.
    data.patients = ''
    data.cache = 'runs/cache'  # folder of decoded images, with a folder per data set and size
    # The validation fold; -1: each in turn, in folders fold0, fold1, ... below the run directory
    # (in short: --config=configs/NAME.py:folds, or NAME.py:fold3 for one fold).
    data.fold = 0
    data.num_folds = 5  # patient-disjoint folds
    data.split_seed = 0  # of the assignment to folds; the same for all stages of an experiment
    data.num_examples = 0  # use only this many images, drawn with split_seed; 0: all
    data.workers = 0  # processes that read records; 0: threads of the main process
    # Every device keeps all images of this size (uint8; 12,047 at 512 px are 3.3 GiB) instead of
    # receiving each batch. Results are the same bit for bit; for hosts too slow for their devices.
    data.on_device = False
    data.phantoms = ml_collections.ConfigDict()
    data.phantoms.num_images = 0  # above 0: first draw this many phantoms into data.root
    data.phantoms.size = 512  # side of a drawn image, pixels
    data.phantoms.seed = 0  # of the drawing; image i does not depend on num_images
    data.phantoms.positive_share = 0.22  # as in SIIM: 2,669 of 12,047

    config.model = model = ml_collections.ConfigDict()
    # P: 'resnet34'. I: 'efficientnet_lite0', a seventh of the parameters, for CPUs.
    model.encoder = 'resnet34'
    # 'imagenet', a file (torchvision, timm or Hugging Face; .safetensors or .pth), or empty for
    # random weights.
    model.pretrained = ''
    # Of the encoder's five feature maps, so many from the first keep the weights and batch
    # statistics that they start with, and no gradient is computed up to there; 5: all of it.
    model.frozen_stages = 0
    model.channels = 3  # A: grey repeated to three channels; 1: the stem's kernel is summed instead
    # 'unit': x/255 only (A); 'imagenet': its mean and std per channel; 'imagenet_grey': one pair;
    # 'symmetric': from -1 to 1, for the weights of EfficientNets.
    model.normalization = 'unit'
    # Channels of a ResNet's first stage (64 is ResNet34); the decoder of any encoder has 4, 2, 1,
    # 1/2 and 1/4 times as many.
    model.width = 64
    model.stage_sizes = (3, 4, 6, 3)  # blocks per stage of a ResNet; these are ResNet34's
    # Of the computation: 'float32' or 'bfloat16'; parameters, statistics and loss stay float32.
    # 'float64' computes all of it so, to compare machines; needs JAX_ENABLE_X64=1.
    model.dtype = 'float32'
    # W (amirassov): BatchNorm uses the statistics it starts with, also in training, and keeps them.
    model.frozen_batch_norm = False
    # W (amirassov): a second output, whether the image shows any pneumothorax. 'auxiliary': trained
    # as well (see loss.classification), ignored in prediction; 'gate': in prediction its
    # probability also multiplies that of every pixel (I; he empties masks below a threshold);
    # 'none': no such output.
    model.classification_head = 'none'

    config.optimizer = optimizer = ml_collections.ConfigDict()
    optimizer.name = 'sgd'  # A: the ResNet50 notebook; 'adam' or 'adamw' elsewhere
    optimizer.learning_rate = 1e-3  # A: where the cosine schedule starts
    optimizer.final_learning_rate = 1e-5  # A: where it ends
    optimizer.warmup_epochs = 0.0  # linear from 0 before the cosine schedule; A has none
    optimizer.momentum = 0.9  # A; of sgd
    optimizer.weight_decay = 0.0  # adds to the gradient (sgd, adam) or shrinks weights (adamw)
    optimizer.clip_norm = 0.0  # largest global norm of the gradient; 0: no clipping
    optimizer.accumulate = 1  # batches whose gradients are averaged into one update
    optimizer.freeze_encoder_epochs = 0  # the encoder keeps its weights for this many epochs

    config.loss = loss = ml_collections.ConfigDict()
    loss.bce = 1.0  # A: weight of binary cross-entropy, mean over pixels
    loss.dice = 1.0  # A: weight of soft Dice
    # A: 'batch', one ratio for the whole batch; 'image': the mean of one per image.
    loss.dice_reduction = 'batch'
    loss.smooth = 1.0  # A: added to numerator and denominator of soft Dice
    loss.focal = 0.0  # weight of focal loss, mean over pixels (W: sneddy's sums are 1:1:1 to 3:1:4)
    loss.focal_gamma = 2.0  # W: how much less a pixel counts that is already right
    # Weight of the classification head's cross-entropy; needs model.classification_head.
    loss.classification = 0.0
    # Above 0, and the others 0: learning without labels. Weight of the mean absolute difference
    # between the network's output and the intensities of hidden pixels, see augment.hide.
    loss.restoration = 0.0

    # Computed on the device, with one draw per image and step.
    config.augment = augment = ml_collections.ConfigDict()
    augment.flip = 0.5  # A: probability of a left-right flip
    augment.vertical_flip = 0.0  # probability of an upside-down flip; radiographs have none
    augment.intensity = 0.3  # A: probability of one of contrast, gamma, brightness
    augment.contrast = 0.2  # L: factor from 1 - 0.2 to 1 + 0.2
    augment.gamma = (80, 120)  # L: range of the exponent, per cent
    augment.brightness = 0.2  # L: offset of at most 0.2 of the range
    augment.warp = 0.3  # A: probability of one of elastic, grid, optical distortion
    augment.elastic_alpha = 120.0  # A: displacement before smoothing, pixels at 512
    augment.elastic_sigma = 6.0  # A: its smoothing, pixels at 512
    augment.elastic_affine = 3.6  # A: three corners move by up to this, pixels at 512
    augment.grid_steps = 5  # L: cells per side
    augment.grid_distort = 0.3  # L: cells are read at 1 - 0.3 to 1 + 0.3 of their size
    augment.optical_distort = 2.0  # A: largest |k| of the lens
    augment.optical_shift = 0.5  # A: largest shift of its centre, pixels at 512
    augment.affine = 0.5  # A: probability of shift-scale-rotate (1 in one of its four notebooks)
    augment.shift = 0.2  # A: by at most this share of the size
    augment.scale = 0.2  # A: from 1 - 0.2 to 1 + 0.2
    augment.rotate = 20.0  # A: by at most this many degrees, either way
    augment.border = 'constant'  # A: beyond a shifted edge: 'constant' (black) or 'reflect'
    augment.crop = 0.25  # A: probability of a crop resized to full size (in one of its notebooks)
    augment.crop_min = 412 / 512  # A: its smallest side, as a share
    # Side of the window cut from the augmented image, pixels (W: amirassov has 512 of 768); 0:
    # whole images. Validation, prediction and the average's batch statistics always use whole ones.
    augment.window = 0
    # I: share of windows that are placed over a pixel of the lesion, if there is one.
    augment.window_on_lesion = 0.0
    # Share of the image that is hidden and to be restored (loss.restoration); 0: none.
    augment.hide = 0.0
    augment.hide_blocks = 32  # I: blocks per side of the grid of which some are hidden

    config.sampling = sampling = ml_collections.ConfigDict()
    # Share of positive images, one value per equal part of the epochs, such as (0.8, 0.6, 0.4):
    # an epoch is then all positives and as many random negatives as the share leaves (W, sneddy).
    # Empty: every image once per epoch (A).
    sampling.positive_share = ()

    config.averaging = averaging = ml_collections.ConfigDict()
    # P has SWA. 'mean': equal mean of the weights (SWA); 'ema': exponential moving average; 'none'.
    averaging.kind = 'mean'
    averaging.start = config.get_ref('num_epochs') - 13  # K: epochs done before averaging starts
    # Updates between two members of the mean; 0: the end of each epoch (K).
    averaging.every_steps = 0
    averaging.decay = 0.999  # of the exponential moving average, per update
    # Training images that the averaged weights' batch statistics are computed on; 0: all; -1: none,
    # the statistics of the last weights are used (A, K).
    averaging.bn_examples = 0

    config.tta = tta = ml_collections.ConfigDict()
    tta.flips = ('horizontal',)  # A: probabilities are averaged with those of the flipped image

    config.evaluation = evaluation = ml_collections.ConfigDict()
    evaluation.batch_size = 16  # images per prediction step
    evaluation.every_epochs = 1  # epochs between two validations; 0: no validation
    # Held-out images whose overlays TensorBoard shows at each validation, those with a pneumothorax
    # first; 0: none. They are in RUN/tensorboard, as others are in RUN/contact_sheet.png.
    evaluation.pictures = 4
    evaluation.weights = 'average'  # which weights are reported: 'average' (if any) or 'last'
    # Chosen on held-out images: 'single', one threshold and a smallest area (A); 'triplet', two
    # thresholds (W, sneddy). 'half': 0.5 at every pixel and nothing chosen (I), which shows what
    # the network marks by itself where the best chosen rule would mark next to nothing.
    # 'risk': the highest threshold that misses at most the share `miss` of a lesion (I).
    evaluation.rule = 'single'
    # For 'risk': the largest mean share of a lesion's pixels that may be missed on new patients,
    # with 95 % confidence over the patients it is chosen on.
    evaluation.miss = 0.1
    # A CSV ImageId,...: figures for the groups of every other column, such as the site. Sex, age,
    # view and manufacturer are taken from DICOM headers without it.
    evaluation.groups = ''
    # Also try rules that drop connected regions below an area (W: sneddy, 100 px).
    evaluation.regions = False
    # Also score the last weights, and prediction without flips, to show what each part gains.
    evaluation.compare = False
    evaluation.ablation_seeds = 3  # trainings of each variant that --mode=ablate compares
    evaluation.bootstrap = 2000  # resamples behind each 95 % interval

    config.checkpoint = checkpoint = ml_collections.ConfigDict()
    checkpoint.every_epochs = 1  # epochs between two checkpoints
    checkpoint.keep = 2  # how many of the newest checkpoints to keep

    # Stages are trained one after another by one command, each in its own folder below the run
    # directory: name -> the keys it changes, in the order of their names. Empty: a single run.
    config.stages = {}
    return Config(config)
