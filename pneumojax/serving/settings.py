"""The settings of a node, from one TOML file (`--node=FILE`).

`deploy/node.toml` explains every key. An unknown key is refused with the nearest name. A secret is
never in the file: a key names the environment variable or the file that holds it.
"""

import dataclasses
import difflib
import ipaddress
import os
import pathlib
import re
import tomllib
import types
import typing
from typing import Any

from pneumojax.errors import UsageError
from pneumojax.system import limits

_AE_TITLE = re.compile(r'[ -\[\]-~]{1,16}')  # PS3.5: no control characters and no backslash
_NAME = re.compile(r'[A-Za-z0-9_-]{1,32}')


def _number(default: float | None, low: float, high: float) -> Any:
    """A key with a range; without a default it must be given."""
    metadata = {'range': (low, high)}
    if default is None:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Tls:
    """Files of certificates, in PEM. Paths are relative to the settings' folder.

    Attributes:
      ca: whom to trust: the other side must show a certificate that one of these has signed.
      certificate: what this side shows.
      key: of that certificate.
    """

    ca: pathlib.Path | None = None
    certificate: pathlib.Path | None = None
    key: pathlib.Path | None = None

    def __post_init__(self) -> None:
        for name in ('ca', 'certificate', 'key'):
            path = getattr(self, name)
            if path is not None and not path.is_file():
                raise ValueError(f'{name} names {path}, and there is no such file')
        if (self.certificate is None) != (self.key is None):
            raise ValueError('certificate and key belong together: give both or neither')


@dataclasses.dataclass(frozen=True)
class Login:
    """How to log in to a DICOMweb server: with a user and password, or with a bearer token."""

    user: str = ''
    password_env: str = ''
    password_file: pathlib.Path | None = None
    token_env: str = ''
    token_file: pathlib.Path | None = None

    def __post_init__(self) -> None:
        given = [bool(getattr(self, name)) for name in _SECRETS]
        if sum(given) != 1:
            raise ValueError(f'give exactly one of {", ".join(_SECRETS)}')
        if bool(self.user) != any(given[:2]):
            raise ValueError('user belongs to a password, and a token needs none')

    def secret(self) -> str:
        """The password or the token. UsageError, which names where it should be, if not there."""
        variable = self.password_env or self.token_env
        if variable:
            if not (secret := os.environ.get(variable, '')):
                raise UsageError(f'--node: the environment variable {variable} is not set or empty')
            return secret
        path = self.password_file or self.token_file
        assert path is not None  # one of the four is given
        try:
            secret = limits.read_text(path, 1 << 16).strip()
        except (OSError, ValueError) as error:
            raise UsageError(f'--node: {path} cannot be read ({type(error).__name__})') from None
        if not secret:
            raise UsageError(f'--node: {path} is empty; it should hold a password or token')
        return secret


_SECRETS = ('password_env', 'password_file', 'token_env', 'token_file')


@dataclasses.dataclass(frozen=True)
class Node:
    """The table [node]: the queue, and how long things are tried and kept."""

    ae_title: str = 'PNEUMOJAX'
    quiet_seconds: float = _number(10.0, 0, 3600)
    tries: int = _number(5, 1, 100)
    keep_hours: float = _number(24.0, 0, 24 * 365)
    remember_days: float = _number(365.0, 1, 36500)
    free_mb: int = _number(500, 0, 10**9)

    def __post_init__(self) -> None:
        _check_ae_title(self.ae_title)


@dataclasses.dataclass(frozen=True)
class Peer:
    """A table [[receive.peer]]: who may send, and from where."""

    ae_title: str
    addresses: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_ae_title(self.ae_title)
        if not self.addresses:
            raise ValueError('addresses is empty; name addresses or networks, such as "10.0.0.0/8"')
        for address in self.addresses:
            try:
                ipaddress.ip_network(address)
            except ValueError:
                raise ValueError(
                    f'addresses: {address!r} is neither an address nor a network (10.0.0.0/8)'
                ) from None

    def may_come_from(self, address: str) -> bool:
        """Whether an address is on the list."""
        try:
            ip = ipaddress.ip_address(address.partition('%')[0])
        except ValueError:
            return False
        ip = getattr(ip, 'ipv4_mapped', None) or ip
        return any(ip in ipaddress.ip_network(one) for one in self.addresses)


@dataclasses.dataclass(frozen=True)
class Receive:
    """The table [receive]: a C-STORE SCP."""

    peer: tuple[Peer, ...]
    host: str = '127.0.0.1'
    port: int = _number(11112, 0, 65535)
    max_object_mb: int = _number(128, 1, 512)
    max_associations: int = _number(8, 1, 256)
    timeout_seconds: float = _number(30.0, 1, 86400)
    tls: Tls | None = None

    def __post_init__(self) -> None:
        if self.tls and not self.tls.certificate:
            raise ValueError('tls: a server needs certificate and key')


@dataclasses.dataclass(frozen=True)
class Poll:
    """The table [poll]: a DICOMweb archive that is asked for new studies."""

    url: str
    every_seconds: float = _number(30.0, 1, 86400)
    days: int = _number(2, 0, 3650)
    modalities: tuple[str, ...] = ('CR', 'DX')
    max_object_mb: int = _number(128, 1, 512)
    timeout_seconds: float = _number(30.0, 1, 3600)
    login: Login | None = None
    tls: Tls | None = None

    def __post_init__(self) -> None:
        _check_url(self.url, self.login)
        if not self.modalities or not all(re.fullmatch('[A-Z]{2,16}', m) for m in self.modalities):
            raise ValueError('modalities: expected codes such as "CR"')


@dataclasses.dataclass(frozen=True)
class Send:
    """A table [[send]]: a destination of results, by C-STORE (host, port, ae_title) or STOW-RS."""

    name: str
    host: str = ''
    port: int = _number(104, 1, 65535)
    ae_title: str = ''
    url: str = ''
    tries: int = _number(10, 1, 1000)
    timeout_seconds: float = _number(30.0, 1, 3600)
    login: Login | None = None
    tls: Tls | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError('name: expected up to 32 letters, digits, - and _')
        if bool(self.url) == bool(self.host):
            raise ValueError('give url (STOW-RS), or host, port and ae_title (C-STORE)')
        if self.url:
            _check_url(self.url, self.login)
        else:
            _check_ae_title(self.ae_title)
            if self.login:
                raise ValueError('login is for a url; a C-STORE destination is known by tls')


@dataclasses.dataclass(frozen=True)
class Health:
    """The table [health]: an HTTP server that tells how the node is."""

    host: str = '127.0.0.1'
    port: int = _number(8686, 0, 65535)


@dataclasses.dataclass(frozen=True)
class Settings:
    """All tables."""

    send: tuple[Send, ...]
    node: Node = dataclasses.field(default_factory=Node)
    receive: Receive | None = None
    poll: Poll | None = None
    health: Health = dataclasses.field(default_factory=Health)

    def __post_init__(self) -> None:
        if not self.receive and not self.poll:
            raise ValueError('give a table [receive] or [poll], where images come from')
        names = [one.name for one in self.send]
        if not names:
            raise ValueError('give a table [[send]], where results go to')
        if len(set(names)) < len(names):
            raise ValueError('two tables [[send]] have the same name')


def read(path: str | os.PathLike) -> Settings:
    """Reads and checks a file of settings.

    Raises:
      UsageError: it cannot be read, or a key or value is not as it should be.
    """
    path = pathlib.Path(path)
    try:
        content = tomllib.loads(limits.read_text(path))
    except OSError as error:
        raise UsageError(f'--node={path} cannot be read: {error.strerror}') from None
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, or too large
        raise UsageError(f'--node={path} is not TOML: {error}') from None
    try:
        return _table(Settings, content, '', path.absolute().parent)
    except ValueError as error:
        raise UsageError(f'--node={path}: {error}; deploy/node.toml explains every key') from None


def key_names(table: type = Settings, prefix: str = '') -> list[str]:
    """Dotted names of all keys, without those of tables."""
    found = []
    for name, kind in typing.get_type_hints(table).items():
        inner = _inner(kind)
        if dataclasses.is_dataclass(inner):
            found += key_names(inner, f'{prefix}{name}.')  # type: ignore[arg-type]
        else:
            found.append(f'{prefix}{name}')
    return found


def _table(table: type, content: Any, where: str, folder: pathlib.Path) -> Any:
    """An instance of a dataclass from a table of TOML."""
    if not isinstance(content, dict):
        raise ValueError(f'{where or "the file"} should be a table')
    fields = {field.name: field for field in dataclasses.fields(table)}
    for key in (key for key in content if key not in fields):
        near = difflib.get_close_matches(key, fields, 1, 0.5)
        hint = f'did you mean {near[0]}?' if near else f'the keys are {", ".join(fields)}'
        raise ValueError(f'unknown key {_join(where, key)}; {hint}')
    hints, values = typing.get_type_hints(table), {}
    for name, field in fields.items():
        if name in content:
            values[name] = _value(hints[name], field, content[name], _join(where, name), folder)
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise ValueError(f'{_join(where, name)} is missing')
    try:
        return table(**values)
    except ValueError as error:
        raise ValueError(f'{where}: {error}' if where else str(error)) from None


def _value(kind: Any, field: Any, value: Any, where: str, folder: pathlib.Path) -> Any:
    inner = _inner(kind)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise ValueError(f'{where} should be a list')
        one = typing.get_args(kind)[0]
        return tuple(_value(one, field, v, f'{where}[{i}]', folder) for i, v in enumerate(value))
    if dataclasses.is_dataclass(inner):
        return _table(inner, value, where, folder)  # type: ignore[arg-type]
    if inner is pathlib.Path:
        if not isinstance(value, str) or not value:
            raise ValueError(f'{where} should be a path')
        return folder / value
    if inner is float and isinstance(value, int):
        value = float(value) if not isinstance(value, bool) else value
    if type(value) is not inner:
        raise ValueError(f'{where} is {value!r}, expected a value of type {inner.__name__}')
    if 'range' in field.metadata:
        low, high = field.metadata['range']
        if not low <= value <= high:
            raise ValueError(f'{where} is {value}, expected {low:g} to {high:g}')
    return value


def _inner(kind: Any) -> Any:
    """The type in `kind | None` and `tuple[kind, ...]`."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is tuple:
        return typing.get_args(kind)[0]
    return kind


def _join(where: str, key: str) -> str:
    return f'{where}.{key}' if where else key


def _check_ae_title(title: str) -> None:
    if not _AE_TITLE.fullmatch(title) or title != title.strip():
        raise ValueError(f'ae_title is {title!r}, expected 1 to 16 characters of ASCII')


def _check_url(url: str, login: Login | None) -> None:
    match = re.fullmatch(r'(https?)://([^/?#\s]+)(/[^?#\s]*)?', url)
    if not match:
        raise ValueError('url: expected http:// or https:// with a host and a path')
    if '@' in match[2]:
        raise ValueError('url: a name or password does not belong there; use the table login')
    host = match[2].rpartition(':')[0] or match[2]
    if login and match[1] == 'http' and host not in ('localhost', '127.0.0.1', '[::1]'):
        raise ValueError('url: a password or token would be sent unencrypted; use https://')
