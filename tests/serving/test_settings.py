"""The settings: deploy/node.toml has every key, the code reads every key, mistakes are named."""

import ast
import pathlib
import re
import sys
import tomllib

import pytest

from pneumojax.errors import UsageError
from pneumojax.prediction.options import Options
from pneumojax.serving import serve, settings

REPOSITORY = pathlib.Path(__file__).parents[2]
EXAMPLE = REPOSITORY / 'deploy' / 'node.toml'
LEAST = """
[receive]
[[receive.peer]]
ae_title = "A"
addresses = ["127.0.0.1"]
[[send]]
name = "archive"
host = "pacs"
ae_title = "PACS"
"""


def read(tmp_path, text):
    path = tmp_path / 'node.toml'
    path.write_text(text)
    return settings.read(path)


def keys_in(text):
    """Dotted keys, in comments as well."""
    found, table = set(), ''
    for line in text.splitlines():
        if match := re.match(r'#?\[+([\w.]+)\]+', line):
            table = match[1]
        elif match := re.match(r'#?(\w+) = ', line):
            found.add(f'{table}.{match[1]}')
    return found


def test_the_example_has_every_key_and_no_other():
    assert keys_in(EXAMPLE.read_text()) == set(settings.key_names())


def test_the_example_shows_the_defaults(tmp_path):
    assert settings.read(EXAMPLE).receive.port == 11112
    text = EXAMPLE.read_text()
    defaults = tomllib.loads(re.sub(r'(?m)^#(?=\w+ = )', '', text.split('#[receive.tls]')[0]))
    read_ = settings.read(EXAMPLE)
    for table in ('node', 'receive'):
        for key, value in defaults[table].items():
            if key != 'peer':
                assert getattr(getattr(read_, table), key) == value, key


def test_everything_in_the_example_can_be_used(tmp_path):
    for name in ('node.crt', 'node.key', 'peers.pem', 'archive.pem'):
        (tmp_path / name).write_text('')
    lines = [
        re.sub(r'^#(?=\[|\w+ = )', '', line)
        for line in EXAMPLE.read_text().splitlines()
        if not re.match('#(password_file|token_env|token_file)', line)
    ]
    read_ = read(tmp_path, '\n'.join(lines))
    assert read_.poll.login.user == read_.send[1].login.user == 'pneumojax'
    assert read_.receive.tls.ca == tmp_path / 'peers.pem'
    assert read_.send[0].tls.key == tmp_path / 'node.key'


def test_every_key_is_read_by_the_code():
    read_ = set()
    for path in (REPOSITORY / 'pneumojax' / 'serving').glob('*.py'):
        tree = ast.parse(path.read_text())
        read_ |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert {key.rpartition('.')[2] for key in settings.key_names()} <= read_


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (('[receive]', '[receive]\nprot = 1'), 'unknown key receive.prot; did you mean port?'),
        (('[receive]', '[recieve]'), 'unknown key recieve; did you mean receive?'),
        (('host = "pacs"', 'host = "pacs"\npassword = "x"'), 'unknown key send[0].password'),
        (('[receive]', '[receive]\nport = "1"'), "receive.port is '1', expected a value of type"),
        (('[receive]', '[receive]\nport = true'), 'receive.port is True, expected'),
        (('[receive]', '[receive]\nport = 70000'), 'receive.port is 70000, expected 0 to 65535'),
        (('"A"', '"A\\\\B"'), 'receive.peer[0]: ae_title is'),
        (('"127.0.0.1"', '"everywhere"'), "addresses: 'everywhere' is neither an address nor"),
        (('["127.0.0.1"]', '[]'), 'addresses is empty'),
        (('host = "pacs"', 'host = "pacs"\nurl = "https://x/y"'), 'give url (STOW-RS), or host'),
        (('name = "archive"', 'name = "a b"'), 'name: expected up to 32 letters'),
        (('name = "archive"\n', ''), 'send[0].name is missing'),
        (('[[send]]', '[[receive.peer]]'), 'send is missing'),
        (('[[receive.peer]]', '[receive.tls]\nca = "no.pem"\n[[receive.peer]]'), 'no such file'),
        (('[receive]', 'receive = 1\n['), 'is not TOML'),
    ],
)
def test_mistakes_are_named(tmp_path, change, message):
    assert change[0] in LEAST
    read(tmp_path, LEAST)
    with pytest.raises(UsageError) as e:
        read(tmp_path, LEAST.replace(*change, 1))
    assert message in str(e.value)


@pytest.mark.parametrize(
    ('login', 'url', 'message'),
    [
        ('user = "a"', 'https://x/y', 'give exactly one of password_env'),
        ('user = "a"\ntoken_env = "T"', 'https://x/y', 'user belongs to a password'),
        ('password_env = "P"', 'https://x/y', 'user belongs to a password'),
        ('token_env = "T"', 'http://archive/y', 'sent unencrypted; use https://'),
        ('token_env = "T"', 'https://me:secret@archive/y', 'does not belong there'),
        ('token_env = "T"', 'ftp://archive/y', 'url: expected http:// or https://'),
    ],
)
def test_mistakes_of_logins(tmp_path, login, url, message):
    poll = f'[poll]\nurl = "{url}"\n[poll.login]\n{login}\n'
    with pytest.raises(UsageError) as e:
        read(tmp_path, LEAST + poll)
    assert message in str(e.value)
    assert 'secret' not in str(e.value)


def test_secrets_come_from_the_environment_or_a_file(tmp_path, monkeypatch):
    (tmp_path / 'token').write_text('from the file\n')
    send = '[[send]]\nname = "{}"\nurl = "https://x/y"\n[send.login]\n{}\n'
    text = LEAST + send.format('b', 'token_file = "token"') + send.format(
        'c', 'user = "me"\npassword_env = "NODE_TEST_PASSWORD"'
    )  # fmt: skip
    _, b, c = read(tmp_path, text).send
    assert b.login.secret() == 'from the file'
    monkeypatch.delenv('NODE_TEST_PASSWORD', raising=False)
    with pytest.raises(UsageError, match='variable NODE_TEST_PASSWORD is not set'):
        c.login.secret()
    monkeypatch.setenv('NODE_TEST_PASSWORD', 'hidden')
    assert c.login.secret() == 'hidden'
    assert 'hidden' not in repr(c)
    (tmp_path / 'token').write_text('\n')
    with pytest.raises(UsageError, match='is empty'):
        b.login.secret()


def test_a_missing_extra_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pynetdicom', None)
    with pytest.raises(UsageError, match=r"needs pynetdicom: pip install 'pneumojax\[node\]'"):
        serve.serve([], EXAMPLE, tmp_path / 'state', Options())
    assert not (tmp_path / 'state').exists()


def test_results_are_asked_for(tmp_path):
    with pytest.raises(UsageError, match='drop --seg=none'):
        serve.serve([], EXAMPLE, tmp_path / 'state', Options(seg='none'))


def test_dead_letters_of_a_folder_that_is_none(tmp_path):
    with pytest.raises(UsageError, match=r'holds no queue\.sqlite'):
        serve.dead_letters(tmp_path, 'list')


@pytest.mark.parametrize(
    ('address', 'listed'),
    [
        ('10.1.2.3', True), ('10.2.0.1', False), ('::ffff:10.1.2.3', True), ('fe80::1%eth0', True),
        ('fe81::1', False), ('', False), ('localhost', False),
    ],
)  # fmt: skip
def test_addresses(address, listed):
    peer = settings.Peer('A', ('10.1.0.0/16', 'fe80::/16'))
    assert peer.may_come_from(address) == listed
