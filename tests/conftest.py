"""What several rooms' tests share: a tiny data set of phantoms and a configuration that fits it."""

import logging
import os
import pathlib
import shutil
import signal

# Many tests compile the same small network; before JAX is imported, and inherited by subprocesses.
os.environ.setdefault(
    'JAX_COMPILATION_CACHE_DIR', str(pathlib.Path(__file__).parents[1] / '.pytest_cache' / 'jax')
)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.5')
os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')  # some tests import ONNX Runtime themselves

import hypothesis
import jax
import pydicom
import pytest

from configs import base
from pneumojax.data.phantoms import phantom
from pneumojax.runs.run import Run
from pneumojax.training import loop
from tests.tiny_runs import write_evaluated_run

# A busy machine takes long over an example without anything being wrong.
hypothesis.settings.register_profile('pneumojax', deadline=None)
hypothesis.settings.load_profile('pneumojax')

# A shell starts what it puts in the background deaf to these, and subprocesses inherit that; tests
# of them would wait for ever.
for signum, heard in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(signum) == signal.SIG_IGN:
        signal.signal(signum, heard)


def tiny_config(root, cache):
    """Four narrow stages at 32 px on 40 phantoms: a run takes seconds."""
    config = base.get_config()
    config.name = 'tiny'
    config.image_size = 32
    config.batch_size = 8
    config.num_epochs = 3
    config.log_every_steps = 1
    config.data.root = str(root)
    config.data.cache = str(cache)
    config.data.num_folds = 4
    config.model.channels = 1
    config.model.width = 4
    config.model.stage_sizes = (1, 1, 1, 1)
    config.optimizer.name = 'adam'
    config.optimizer.learning_rate = 1e-2
    for key in ('warp', 'affine', 'crop', 'intensity'):  # compiles in a quarter of the time
        config.augment[key] = 0.0
    config.averaging.start = 1
    config.evaluation.batch_size = 8
    config.evaluation.bootstrap = 200
    config.evaluation.pictures = 0
    return config


@pytest.fixture(scope='session')
def phantoms(tmp_path_factory):
    """The root of 40 phantoms, 40 % positive, in Kaggle's layout."""
    root = tmp_path_factory.mktemp('phantoms') / 'siim'
    phantom.write_dataset(root, num_images=40, size=64, seed=3, positive_share=0.4)
    return root


@pytest.fixture(scope='session')
def cache(tmp_path_factory):
    """A cache that all tests share: each size is decoded once."""
    return tmp_path_factory.mktemp('cache')


@pytest.fixture
def config(phantoms, cache):
    """A fresh copy of the tiny configuration."""
    return tiny_config(phantoms, cache)


@pytest.fixture(scope='module')
def quick_compilation():
    """XLA compiles in a third of the time when it does not care how fast the result is."""
    for quick in (True, False):
        jax.config.update('jax_disable_most_optimizations', quick)
        jax.clear_caches()  # programs in memory do not say how they were compiled
        if quick:
            yield


@pytest.fixture(scope='session')
def trained(phantoms, cache, tmp_path_factory):
    """The tiny configuration and its uninterrupted run, for several files; nobody changes it."""
    config, run = tiny_config(phantoms, cache), Run(tmp_path_factory.mktemp('runs') / 'whole')
    loop.train(config, run)
    return config, run


@pytest.fixture(scope='session')
def evaluated(phantoms, cache, tmp_path_factory):
    """A run of random weights, really evaluated, with variants; nobody changes it."""
    path = tmp_path_factory.mktemp('runs') / 'evaluated'
    return write_evaluated_run(
        path, phantoms, cache, evaluation__compare=True, evaluation__rule='half'
    )


@pytest.fixture(scope='session')
def images(tmp_path_factory):
    """Nine phantoms: JPEG, MONOCHROME1 and 12 bits; one of them wide, one with wide pixels."""
    root = tmp_path_factory.mktemp('images')
    phantom.write_dataset(root / 'set', num_images=9, size=96, seed=4, positive_share=0.4)
    for i, path in enumerate(sorted((root / 'set').rglob('*.dcm'))):
        dataset = pydicom.dcmread(path)
        if i < 2:
            dataset.decompress(generate_instance_uid=False)
            dataset.PixelData = dataset.pixel_array[:60].tobytes()
            dataset.Rows = 60
            dataset.PixelSpacing = [0.2, 0.2] if i == 0 else [0.3, 0.15]
        dataset.save_as(root / f'image{i}.dcm')
    shutil.rmtree(root / 'set')
    return root


@pytest.fixture(autouse=True)
def restored_log():
    """Tests that run the program change its logger, and others read messages by pytest's caplog."""
    log = logging.getLogger('pneumojax')
    before = log.propagate, log.level, log.handlers[:]
    yield
    log.propagate, log.level, log.handlers[:] = before


@pytest.fixture
def messages():
    """What is logged, one string a message, whichever of the two loggers is in use."""
    seen = []

    class Handler(logging.Handler):
        def emit(self, record):
            seen.append(record.getMessage())

    loggers, handler = [logging.getLogger(name) for name in ('pneumojax', 'absl')], Handler()
    for logger in loggers:
        logger.addHandler(handler)
    yield seen
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.fixture
def browser(tmp_path):
    """Headless Chromium, which keeps what pages write to its console and ask for."""
    webdriver = pytest.importorskip('selenium.webdriver', reason='selenium is not installed')
    program, driver = shutil.which('chromium'), shutil.which('chromedriver')
    if not program or not driver:
        pytest.skip('chromium and chromedriver are not installed')
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (
        'headless=new', 'no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run',
        'disable-background-networking', 'disable-component-update', 'disable-sync',
        f'user-data-dir={tmp_path / "profile"}',
    ):  # fmt: skip
        options.add_argument(f'--{argument}')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    service = webdriver.chrome.service.Service(driver)
    browser = webdriver.Chrome(options=options, service=service)
    yield browser
    browser.quit()
