"""A folder in Hugging Face's layout: the same bits, nothing overwritten, no damage read."""

import hashlib
import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

import pneumojax
from pneumojax import config as config_lib
from pneumojax.data import dataset as dataset_lib
from pneumojax.errors import UsageError
from pneumojax.evaluation import scores
from pneumojax.evaluation.wording import METRIC_NAMES
from pneumojax.models import build, pretrained
from pneumojax.models.unet import CLASSIFICATION_HEAD
from pneumojax.prediction.options import Options
from pneumojax.prediction.predict import predict
from pneumojax.runs.run import Run
from pneumojax.runtimes import choose, ensemble_member, export, export_torch, pretrained_folder
from pneumojax.training import loop
from tests import no_network
from tests.prediction.predictions import results
from tests.tiny_runs import tiny_config, write_evaluated_run, write_run

WEIGHTS = 'model.safetensors'
SUMMED = (WEIGHTS, 'config.json', 'thresholds.json', 'evaluation.json')


@pytest.fixture(scope='module')
def saved(evaluated, tmp_path_factory):
    """The folder of an evaluated run; nobody changes it."""
    folder = tmp_path_factory.mktemp('hub') / 'network'
    pneumojax.save_pretrained(evaluated.path, folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return pathlib.Path(shutil.copytree(saved, tmp_path / 'copy'))


@pytest.fixture
def hub():
    return pytest.importorskip('huggingface_hub', reason="the extra 'hub' is not installed")


def image():
    return np.random.default_rng(0).integers(0, 256, (70, 50), np.uint8)


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def sign(folder, *names):
    """SHA256SUMS as a stranger who changed the files would write it."""
    lines = [f'{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}' for n in names]
    (folder / 'SHA256SUMS').write_text('\n'.join(lines) + '\n')


# --- what is saved -----------------------------------------------------------------------------


def test_it_holds_what_it_says(saved, evaluated):
    assert set(contents(saved)) == set(pretrained_folder.FILES)
    assert (saved / 'README.md').read_text() == (evaluated / 'model_card.md').read_text()
    for name in ('thresholds.json', 'evaluation.json'):
        assert (saved / name).read_bytes() == (evaluated / name).read_bytes()
    done = subprocess.run(
        ['sha256sum', '--check', '--strict', 'SHA256SUMS'], cwd=saved, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.count(': OK')) == (0, 4), done.stderr


def test_the_weights_are_the_torch_export_and_the_configuration_has_no_paths(
    saved, evaluated, tmp_path
):
    variables = ensemble_member.of_run(evaluated).variables()
    exported = export_torch.export_torch(variables, tmp_path / 'unet.safetensors')
    assert (saved / WEIGHTS).read_bytes() == exported.read_bytes()
    before, after = evaluated.config(), Run(saved).config()
    config_lib.check(after)
    changed = {text.split(':')[0] for text in config_lib.differences(before, after, free=())}
    assert changed == {'data.root', 'data.cache'}
    assert str(evaluated.path.parent.parent) not in (saved / 'config.json').read_text()


# --- what is loaded ----------------------------------------------------------------------------


@pytest.mark.parametrize('runtime', ['jax', 'openvino', 'onnxruntime'])
def test_probabilities_are_the_runs_own_bit_for_bit(copy, evaluated, runtime):
    if runtime != 'jax' and not all(map(choose.is_installed, (runtime, 'onnx', 'onnxruntime'))):
        pytest.skip("the extra 'cpu' is not installed")
    own = pneumojax.load(evaluated.path, runtime=runtime)
    loaded = pneumojax.load(copy, runtime=runtime)
    assert loaded.rule == own.rule
    expected = own(image())
    assert expected.std() > 0
    np.testing.assert_array_equal(loaded(image()), expected)


def test_averaged_weights_and_both_heads_are_saved_as_they_are(tmp_path):
    config, run = tiny_config(), Run(tmp_path / 'run')
    config.model.classification_head, config.loss.classification = 'gate', 1.0
    run.start(config)
    rng = np.random.default_rng(0)
    shapes = build.variable_shapes(config)
    items = {
        prefix + name: jax.tree.map(lambda x: rng.uniform(0.1, 1, x.shape).astype(x.dtype), tree)
        for prefix in ('', 'average_')
        for name, tree in shapes.items()
    }
    with run.checkpoints.writer(1) as checkpointer:
        checkpointer.save_checkpointables(7, items)
    rule = {'top': 0.5, 'area': 0, 'bottom': 0.5, 'reference_pixels': 1 << 20, 'flips': []}
    stated = rule | {'step': 7, 'image_size': 32}
    undefined = {name: {'value': None, 'low': None, 'high': None} for name in METRIC_NAMES}
    run.write_json('evaluation.json', undefined | {'n': 1, 'n_positive': 0, 'step': 7})
    run.write_json('split.json', {'train': ['a'], 'validation': ['b']})
    for which, prefix in (('last', ''), ('average', 'average_')):
        run.write_json('thresholds.json', stated | {'weights': which})
        pneumojax.save_pretrained(run.path, tmp_path / which)
        member = ensemble_member.of_run(pretrained_folder.opened(Run(tmp_path / which)))
        loaded = member.variables()
        assert set(loaded['params']) == {'encoder', 'decoder', 'head', CLASSIFICATION_HEAD}
        for name in shapes:
            jax.tree.map(np.testing.assert_array_equal, loaded[name], items[prefix + name])


def test_the_program_predicts_with_it(saved, evaluated, images, tmp_path):
    for name, run in (('run', evaluated), ('folder', Run(saved))):
        assert predict([run], images, tmp_path / name, Options(runtime='jax')) == 0
    for row, other in zip(results(tmp_path / 'run'), results(tmp_path / 'folder'), strict=True):
        assert row == other
        mask = pathlib.Path('masks', f'{row["ImageId"]}.png')
        assert (tmp_path / 'run' / mask).read_bytes() == (tmp_path / 'folder' / mask).read_bytes()


def test_it_can_be_exported_again_and_trained_from(saved, evaluated, tmp_path):
    run = Run(saved)
    export.export(run.config(), run, str(tmp_path / 'again'), 'huggingface')
    assert contents(tmp_path / 'again') == contents(saved)
    export.export(run.config(), run, str(tmp_path / 'torch'), 'torch')
    assert (tmp_path / 'torch' / 'unet.safetensors').read_bytes() == (saved / WEIGHTS).read_bytes()
    own = ensemble_member.of_run(evaluated).variables()
    loaded = pretrained.load_smp_unet(
        saved / WEIGHTS, channels=1, width=4, stage_sizes=(1, 1, 1, 1)
    )
    np.testing.assert_array_equal(
        loaded['params']['head']['kernel'], own['params']['head']['kernel']
    )


# --- refusals ----------------------------------------------------------------------------------


def test_no_file_is_overwritten(copy, evaluated):
    (copy / 'README.md').write_text('mine')
    before = contents(copy)
    with pytest.raises(UsageError, match=r'exists already and is not overwritten'):
        pneumojax.save_pretrained(evaluated.path, copy)
    (copy / 'model.safetensors').unlink()
    del before['model.safetensors']
    with pytest.raises(UsageError, match=r'README\.md exists already'):
        pneumojax.save_pretrained(evaluated.path, copy)
    assert contents(copy) == before


@pytest.mark.parametrize('name', [*SUMMED, 'SHA256SUMS'])
def test_what_is_missing_or_changed_is_named(copy, name):
    path = copy / name
    content = path.read_bytes()
    middle = len(content) // 2
    changes = [content[:middle], content + b' ', b'',
               content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]]  # fmt: skip
    for changed in changes:
        path.write_bytes(changed)
        with pytest.raises(UsageError) as error:
            pneumojax.load(copy)
        # A digit of a sum changed accuses the file that it is of.
        assert name in str(error.value)
        assert '\n' not in str(error.value)
    path.unlink()
    with pytest.raises(UsageError, match=name):
        pneumojax.load(copy)


def test_files_that_only_people_read_may_change(copy):
    (copy / 'README.md').write_text('---\nlicense: mit\n---\nMine')
    (copy / 'LICENSE').write_text('MIT')
    pneumojax.load(copy, runtime='jax')
    (copy / 'README.md').unlink()
    pneumojax.load(copy, runtime='jax')


@pytest.mark.parametrize(
    ('name', 'change', 'words'),
    [
        ('config.json', {'image_size': 64}, r'thresholds\.json'),
        ('config.json', {'seed': -1}, r'config\.seed'),
        ('thresholds.json', {'top': 'x'}, r'thresholds\.json'),
        ('thresholds.json', {'step': None}, r'thresholds\.json'),
        ('evaluation.json', {'n': 'x'}, r'evaluation\.json'),
    ],
)
def test_files_that_do_not_fit_each_other_are_refused_with_right_sums(copy, name, change, words):
    (copy / name).write_text(json.dumps(json.loads((copy / name).read_text()) | change))
    sign(copy, *SUMMED)
    with pytest.raises(UsageError, match=words):
        pneumojax.load(copy, runtime='jax')


def test_weights_of_another_network_are_refused_with_right_sums(copy):
    config = json.loads((copy / 'config.json').read_text())
    config['model']['width'] = 8
    (copy / 'config.json').write_text(json.dumps(config))
    sign(copy, *SUMMED)
    with pytest.raises(UsageError, match=WEIGHTS):
        pneumojax.load(copy, runtime='jax')
    tensors = safetensors.numpy.load_file(copy / WEIGHTS)
    config['model']['width'] = 4
    (copy / 'config.json').write_text(json.dumps(config))
    safetensors.numpy.save_file({**tensors, 'extra': np.zeros(3, np.float32)}, copy / WEIGHTS)
    sign(copy, *SUMMED)
    with pytest.raises(UsageError, match=r'model\.safetensors.*extra'):
        pneumojax.load(copy, runtime='jax')
    sign(copy, *SUMMED[1:])
    with pytest.raises(UsageError, match=r'SHA256SUMS does not name model\.safetensors'):
        pneumojax.load(copy, runtime='jax')


def test_a_pickle_is_not_opened(copy, tmp_path):
    """What calls itself safetensors and is a pickle that would make a file."""
    code = b"cos\nsystem\n(S'touch " + str(tmp_path / 'ran').encode() + b"'\ntR."
    (copy / WEIGHTS).write_bytes(code)
    sign(copy, *SUMMED)
    with pytest.raises(UsageError, match='not a safetensors file'):
        pneumojax.load(copy, runtime='jax')
    assert not (tmp_path / 'ran').exists()


def test_it_is_no_run_to_train_or_to_evaluate(copy, config):
    run = Run(copy)
    before = contents(copy)
    for given in (run.config(), config):
        with pytest.raises(UsageError, match=r'model\.pretrained=.*model\.safetensors'):
            loop.train(given, run)
    with pytest.raises(UsageError, match=r'model\.pretrained=.*model\.safetensors'):
        scores.load_trained(run.config(), run)
    assert contents(copy) == before


def test_runs_that_cannot_be_saved(evaluated, phantoms, cache, tmp_path):
    bare = write_run(tmp_path / 'bare')
    with pytest.raises(UsageError, match=r'evaluation\.json is missing; run --mode=evaluate'):
        pneumojax.save_pretrained(bare.path, tmp_path / 'out')
    other = Run(shutil.copytree(evaluated.path, tmp_path / 'other'))
    other.write_json('evaluation.json', other.read_json('evaluation.json') | {'step': 3})
    with pytest.raises(UsageError, match=r'evaluation\.json is of step 3'):
        pneumojax.save_pretrained(other.path, tmp_path / 'out')
    with pytest.raises(UsageError, match='--shape'):
        export.export(other.config(), other, str(tmp_path / 'out'), 'huggingface', 'any,any,any')
    assert not (tmp_path / 'out').exists()


# --- huggingface_hub ---------------------------------------------------------------------------


def test_hugging_faces_own_names_load_save_and_send_it(
    hub, saved, evaluated, tmp_path, monkeypatch
):
    loaded = pneumojax.from_pretrained(saved, runtime='jax')
    assert isinstance(loaded, hub.ModelHubMixin)
    expected = pneumojax.load(evaluated.path, runtime='jax')(image())
    np.testing.assert_array_equal(loaded(image()), expected)
    loaded.save_pretrained(tmp_path / 'again')
    assert contents(tmp_path / 'again') == contents(saved)
    with pytest.raises(UsageError, match='exists already'):
        loaded.save_pretrained(tmp_path / 'again')
    assert contents(tmp_path / 'again') == contents(saved)
    sent = {}

    class Api:
        def __init__(self, **_):
            pass

        def create_repo(self, repo_id, **_):
            sent['repository'] = repo_id
            return type('Created', (), {'repo_id': repo_id})

        def upload_folder(self, folder_path, **_):
            sent['files'] = contents(pathlib.Path(folder_path))
            return 'sent'

    monkeypatch.setattr('huggingface_hub.hub_mixin.HfApi', Api)
    assert loaded.push_to_hub('someone/network') == 'sent'
    assert sent == {'repository': 'someone/network', 'files': contents(saved)}


def test_a_repository_is_downloaded_file_by_file(hub, saved, tmp_path, monkeypatch):
    asked = []

    def snapshot_download(repo_id, **options):
        asked.append((repo_id, options))
        return str(saved)

    monkeypatch.setattr(hub, 'snapshot_download', snapshot_download)
    monkeypatch.setattr(
        'huggingface_hub.hub_mixin.hf_hub_download', lambda **_: str(saved / 'config.json')
    )
    loaded = pneumojax.from_pretrained('someone/network', runtime='jax', revision='main')
    assert loaded(image()).shape == (70, 50)
    ((name, options),) = asked
    assert (name, options['revision']) == ('someone/network', 'main')
    assert set(options['allow_patterns']) == set(pretrained_folder.FILES)


def test_other_folders_and_names_are_refused_before_any_network(hub, evaluated, copy):
    with pytest.raises(UsageError, match=r'no network in Hugging Face.s layout.*pneumojax\.load'):
        pneumojax.from_pretrained(evaluated.path)
    with pytest.raises(UsageError, match='no folder here'):
        pneumojax.from_pretrained('/nowhere/at/all')
    (copy / 'config.json').write_text('no JSON')
    with pytest.raises(UsageError, match=r'config\.json is damaged or was changed'):
        pneumojax.from_pretrained(copy)


def test_without_the_extra_the_rest_works(saved, evaluated, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    monkeypatch.delitem(sys.modules, 'pneumojax.prediction.hub', raising=False)
    monkeypatch.delattr('pneumojax.prediction.hub', raising=False)
    with pytest.raises(UsageError, match=r'pip install .pneumojax\[hub\]'):
        pneumojax.from_pretrained(saved)
    pneumojax.save_pretrained(evaluated.path, tmp_path / 'out')
    pneumojax.load(tmp_path / 'out', runtime='jax')


@pytest.mark.slow
@pytest.mark.skipif(not no_network.is_possible(), reason='needs seccomp, of Linux on x86_64 or ARM')
def test_no_socket_is_opened(hub, evaluated, tmp_path):
    code = (
        'import pneumojax, sys\n'
        'run, folder = sys.argv[1:]\n'
        'pneumojax.save_pretrained(run, folder)\n'
        'pneumojax.from_pretrained(folder).save_pretrained(folder + "2")\n'
        'print("done")'
    )
    done = no_network.run(
        [sys.executable, '-c', code, str(evaluated.path), str(tmp_path / 'out')],
        folder=tmp_path, cwd=pathlib.Path(__file__).parents[2],
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, 'done\n'), done.stderr


def test_dataset_paths_are_not_needed(saved, evaluated):
    """The folder is used where the images are not: nothing of them is looked for."""
    config = Run(saved).config()
    with pytest.raises(UsageError):
        dataset_lib.load(config)
    pneumojax.load(saved, runtime='jax')


@pytest.mark.slow
def test_an_efficientnet_lite0_keeps_its_bits(phantoms, cache, tmp_path):
    run = write_evaluated_run(
        tmp_path / 'run', phantoms, cache, encoder='efficientnet_lite0', evaluation__rule='half'
    )
    pneumojax.save_pretrained(run.path, tmp_path / 'network')
    theirs = ensemble_member.of_run(pretrained_folder.opened(Run(tmp_path / 'network')))
    jax.tree.map(
        np.testing.assert_array_equal, theirs.variables(), ensemble_member.of_run(run).variables()
    )
    assert 'EfficientNet-Lite0' in (tmp_path / 'network' / 'README.md').read_text()
