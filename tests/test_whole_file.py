"""A file is the old one or the new one, whatever happens while it is written."""

import pytest

from pneumojax.whole_file import replacing


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
