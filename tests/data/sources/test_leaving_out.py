"""The list of pictures that somebody has left out: heeded when a folder is opened, and never a reason to lose one."""

import pytest
from test_editing import png

from sdxl_nb import TrainConfig, open_dataset
from sdxl_nb.data.sources.leaving_out import LIST, leave_out, listed
from sdxl_nb.system.errors import DataError, NoPictures


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b", "more/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.png").write_bytes(png())
        (tmp_path / f"{name}.txt").write_text(name)
    return tmp_path


def opened(folder):
    return open_dataset(TrainConfig(train_data_dir=str(folder)))


def test_what_is_on_the_list_is_left_out_and_named_and_comes_back(folder):
    assert leave_out(folder, ["more/c.png", "gone.png"]) == {"more/c.png", "gone.png"} == listed(folder)
    pictures = opened(folder)
    assert list(pictures.names) == ["a.png", "b.png"] and pictures.notes == []
    assert [fault.sentence for fault in pictures.faults] == [
        "more/c.png was left out by hand (.left-out.txt): bring it back in the data set browser."
    ]
    assert leave_out(folder, ["more/c.png", "gone.png"], out=False) == set() and not (folder / LIST).exists()
    assert list(opened(folder).names) == ["a.png", "b.png", "more/c.png"] and opened(folder).faults == []


def test_a_list_that_cannot_be_read_is_said(folder):
    (folder / LIST).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"\.left-out\.txt cannot be read .*: mend it, or delete it\."):
        opened(folder)


def test_a_place_without_pictures_is_no_error_where_they_may_still_come(tmp_path):
    for place in (tmp_path, tmp_path / "new"):
        config = TrainConfig(train_data_dir=str(place))
        with pytest.raises(NoPictures, match=r"check --train_data_dir"):
            open_dataset(config)
        none = open_dataset(config, uncaptioned=True)
        assert len(none) == 0 and "check --train_data_dir" in none.notes[0]
    assert not (tmp_path / "new").exists()
