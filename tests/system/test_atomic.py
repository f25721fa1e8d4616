"""A file or folder is the old one or the new one, whatever happens while it is written."""

import pytest

from pneumojax.system.atomic import new_folder, replacing


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('old')
    with replacing(path) as unfinished:
        assert unfinished.parent == path.parent  # a rename between file systems is a copy
        unfinished.write_text('new')
        assert path.read_text() == 'old'
    assert path.read_text() == 'new'
    assert list(tmp_path.iterdir()) == [path]


def test_after_an_error_nothing_has_changed(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('old')

    def fail_in_the_middle():
        with replacing(path) as unfinished:
            unfinished.write_text('half')
            raise OSError('the disk is full')

    with pytest.raises(OSError, match='full'):
        fail_in_the_middle()
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_never_wrote_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / 'a.txt'):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('there', [False, True])
def test_a_folder_appears_when_it_is_whole_and_all_may_read_it(tmp_path, there):
    path = tmp_path / 'a'
    if there:
        path.mkdir()
    with new_folder(path) as unfinished:
        assert unfinished.parent == path.parent
        (unfinished / 'b').write_text('new')
        assert path.exists() == there
    assert (path / 'b').read_text() == 'new'
    assert path.stat().st_mode & 0o777 == 0o755
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_fails_or_comes_second_leaves_nothing(tmp_path):
    path = tmp_path / 'a'

    def second():
        with new_folder(path) as unfinished:
            path.mkdir()
            (path / 'of another').touch()
            (unfinished / 'b').touch()

    def failing():
        with new_folder(path):
            raise ValueError('in the middle')

    with pytest.raises(ValueError, match='middle'):
        failing()
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match='not empty'):
        second()
    assert [p.name for p in tmp_path.rglob('*')] == ['a', 'of another']
