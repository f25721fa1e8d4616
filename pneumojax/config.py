"""A run's configuration: checked once at the start, written to and read from `config.json`.

The keys and their defaults are in `configs/base.py`, what each may be is in `config_schema.py`.
"""

import difflib
import json
from collections.abc import Collection, Mapping
from typing import Any

import ml_collections

from pneumojax.config_schema import KEYS, RULES
from pneumojax.errors import UsageError

ALL_FOLDS = -1  # as data.fold: every fold, each in a folder of its own, see runs/layout.py

# Renamed keys and groups. The old names are still understood, see `Config` and `upgrade`.
RENAMED = {
    'swa': 'averaging',
    'augment.tone': 'augment.intensity',
    'loss.dice_over': 'loss.dice_reduction',
    'loss.image': 'loss.classification',
    'model.image_head': 'model.classification_head',
}
# What may differ in a run that is continued.
FREE_KEYS = tuple(key for key, row in KEYS.items() if row.free)
# What may also differ once it is trained. `init_from` is no more than a path then.
FREE_AFTER_TRAINING = (
    *FREE_KEYS, 'init_from', *(key for key in KEYS if key.startswith(('evaluation.', 'tta.'))),
)  # fmt: skip
# What may differ where a finished run is trained on; `averaging.start` usually follows the first.
TRAIN_ON_KEYS = ('num_epochs', 'averaging.start')
_NEW_NAMES = {old.split('.')[-1]: new.split('.')[-1] for old, new in RENAMED.items()}


class Config(ml_collections.ConfigDict):
    """A ConfigDict whose renamed keys can be read and set by their old names too.

    Args:
      values: the content. References between keys are kept, groups become `Config` too.
      args, options: see ConfigDict.
    """

    def __init__(self, values: Mapping[str, Any] | None = None, *args: Any, **options: Any) -> None:
        super().__init__(None, *args, **options)
        object.__setattr__(self, '_fields', _Fields())
        if isinstance(values, ml_collections.ConfigDict):
            values = dict(values.items(preserve_field_references=True))
        for key, value in (values or {}).items():
            self[key] = value

    def __setitem__(self, key: str, value: Any) -> None:
        is_group = isinstance(value, dict | ml_collections.ConfigDict)
        if is_group and not isinstance(value, Config):
            value = Config(value, self.is_type_safe)
        super().__setitem__(key, value)


class _Fields(dict):
    """The fields of one group. An old name means the new one where only the new one is there."""

    def _name(self, key: Any) -> Any:
        new = _NEW_NAMES.get(key)
        return new if super().__contains__(new) and not super().__contains__(key) else key

    def __contains__(self, key: Any) -> bool:
        return super().__contains__(self._name(key))

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self._name(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(self._name(key), value)

    def __delitem__(self, key: Any) -> None:
        super().__delitem__(self._name(key))


# --- keys and values ---------------------------------------------------------------------------


def get(config: ml_collections.ConfigDict, key: str) -> Any:
    """The value of a dotted key, such as 'data.root'; the whole configuration for ''."""
    for part in filter(None, key.split('.')):
        config = config[part]
    return config


def has(config: ml_collections.ConfigDict, key: str) -> bool:
    """Whether there is such a dotted key or group."""
    try:
        get(config, key)
    except (AttributeError, KeyError, TypeError):
        return False
    return True


def advice(config: ml_collections.ConfigDict, key: str, before: str = 'config.') -> str:
    """For a key that does not exist: which one may be meant, and where all are listed.

    Args:
      config: has all keys.
      key: the dotted key that it has not.
      before: what to write before keys.
    """
    path, _, name = key.rpartition('.')
    known, group = list(flatten(config)), get(config, path) if has(config, path) else None
    meant = []
    if isinstance(group, ml_collections.ConfigDict):
        near = difflib.get_close_matches(name, list(group), n=1)
        meant = [f'{path}.{other}'.lstrip('.') for other in near]
    meant = meant or [other for other in known if other.rpartition('.')[2] == name]
    meant = meant or difflib.get_close_matches(key, known, n=1)
    words = ' or '.join(before + other for other in meant[:3])
    return f'did you mean {words}?' if words else 'docs/reference/config.md lists all'


def flatten(config: ml_collections.ConfigDict, prefix: str = '') -> dict[str, Any]:
    """Dotted keys and values of all leaves."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            flat.update(flatten(value, f'{prefix}{key}.'))
        else:
            flat[prefix + key] = value
    return flat


def folders(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Names of the folders below a run directory that its parts are trained in."""
    if config.data.fold == ALL_FOLDS:
        return tuple(f'fold{fold}' for fold in range(config.data.num_folds))
    return tuple(config.stages)


# --- checks ------------------------------------------------------------------------------------


def check(config: ml_collections.ConfigDict) -> None:
    """Raises UsageError for the first value that cannot work, naming its key."""
    for key, row in KEYS.items():
        try:
            value = get(config, key)
        except (AttributeError, KeyError, TypeError):
            raise UsageError(f'config.{key} is missing; start from configs/base.py') from None
        _require(key, value, row.allows(value), row.expected)
    for rule in RULES:
        expected = rule.expected.format(c=config)
        _require(rule.key, get(config, rule.key), rule.holds(config), expected)
    known = flatten(config).keys()
    for stage, changes in config.stages.items():
        for key in flatten(changes):
            if key not in known:
                raise UsageError(
                    f'config.stages.{stage}.{key}: there is no key {key!r} to change; '
                    + advice(config, key)
                )


def require_segmentation(config: ml_collections.ConfigDict, run: Any) -> None:
    """UsageError where a run learns without labels: it cannot find a pneumothorax.

    Args:
      config: of one run.
      run: its directory, for the message.
    """
    if config.loss.restoration:
        raise UsageError(
            f'{run} learns without labels (loss.restoration), so it cannot find a pneumothorax; '
            'train on labelled images from its weights: --config=NAME --config.data.root=DIR '
            f'--config.init_from={run}'
        )


def _require(key: str, value: Any, ok: bool, expected: str) -> None:
    if not ok:
        shown = ' '.join(repr(value).split())  # a ConfigDict's has several lines
        raise UsageError(f'config.{key} is {shown}: expected {expected}')


# --- as text -----------------------------------------------------------------------------------


def to_json(config: ml_collections.ConfigDict) -> str:
    """The resolved configuration as JSON text (references replaced by their values)."""
    return json.dumps(config.copy_and_resolve_references().to_dict(), indent=2) + '\n'


def from_json(text: str) -> Config:
    """The inverse of `to_json`. JSON knows no tuples: every list becomes one again.

    Raises:
      ValueError: the text is not a JSON object.
    """

    def restore(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: restore(v) for k, v in value.items()}
        if isinstance(value, list):
            return tuple(restore(v) for v in value)
        return value

    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError('not a JSON object')
    return Config(restore(values))


def upgrade(config: ml_collections.ConfigDict) -> Config:
    """A configuration of any earlier version, with the keys of this one.

    Renamed keys get their new names, also in the changes of stages. Keys that did not exist yet get
    the values that describe what such a run did.

    Args:
      config: may have only some of the groups, as that of a converted network. May be changed.
    """
    config = Config(config)
    for part in (config, *config.get('stages', {}).values()):
        for old, new in RENAMED.items():
            group, name = _group(part, old)
            if name in list(group):  # by this very name
                value = group[name]
                del group[name]
                group[new.split('.')[-1]] = value
    for key, row in KEYS.items():
        group, name = _group(config, key)
        if row.absent is not None and group and name not in group:
            group[name] = row.absent
    return config


def _group(config: Any, key: str) -> tuple[Any, str]:
    """A key's group, {} where there is no such group, and its name within the group."""
    path, _, name = key.rpartition('.')
    try:
        group = get(config, path) if path else config
    except (AttributeError, KeyError, TypeError):
        group = None
    return (group if isinstance(group, Config) else {}), name


def differences(
    old: ml_collections.ConfigDict,
    new: ml_collections.ConfigDict,
    free: Collection[str] = FREE_KEYS,
) -> list[str]:
    """One 'key: old -> new' for every key whose difference would make it another run.

    Args:
      old, new: configurations of any version.
      free: dotted keys that may differ.
    """
    before, after = (flatten(upgrade(from_json(to_json(config)))) for config in (old, new))
    return [
        f'{key}: {before.get(key)!r} -> {after.get(key)!r}'
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and key not in free
    ]
