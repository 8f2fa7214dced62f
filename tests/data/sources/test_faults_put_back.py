"""The faults of old, put back: the tests of what a folder means must find each of them."""

import pytest
import test_captions_found
import test_meant

from sdxl_nb.data import dataset, listed_captions
from sdxl_nb.data.sources.folders import file_names, folders, layouts, strangers


@pytest.fixture
def everything_is_a_picture(monkeypatch):
    """Case 7: what lies in the folder is trained on, whatever it is."""
    for name in ("certain", "doubt", "labelled", "by_name"):
        monkeypatch.setattr(strangers, name, lambda *given: None)
    monkeypatch.setattr(strangers, "own_folders", lambda *given: {})


@pytest.mark.usefixtures("everything_is_a_picture")
@pytest.mark.parametrize("case", ["a run", "class pictures", "OneTrainer's masks", "samples of kohya", "thumbnails"])
def test_pictures_of_others(case, tmp_path):
    with pytest.raises(AssertionError):
        test_meant.test_beside_two_captioned_pictures(case, "sks", tmp_path)


@pytest.mark.usefixtures("everything_is_a_picture")
def test_pictures_of_the_configuration(tmp_path):
    with pytest.raises(AssertionError):
        test_meant.test_folders_of_the_configuration_are_never_trained_on(tmp_path / "a")
    with pytest.raises(AssertionError):
        test_meant.test_a_run_inside_the_folder_changes_no_data(tmp_path / "b")


def test_splits_and_projects(monkeypatch, tmp_path):
    monkeypatch.setattr(layouts, "project", lambda *given: None)
    monkeypatch.setattr(layouts, "split", lambda *given: None)
    for case in ("kohya's project", "splits"):
        with pytest.raises(AssertionError):
            test_meant.test_the_folder_that_is_meant(case, tmp_path / case)


@pytest.mark.parametrize("case", ["data beside README.md", "one a folder", "both kinds", "metadata and texts"])
def test_metadata_in_subfolders(case, monkeypatch, tmp_path):
    """Case 8: only the folder's own metadata is read, and a trigger word takes the place of all captions."""

    def of_the_folder(root, tables, *rest):
        return file_names.read_names(root, [table for table in tables if "/" not in table], *rest)

    monkeypatch.setattr(folders, "read_names", of_the_folder)
    with pytest.raises((AssertionError, dataset.DataError)):
        test_captions_found.test_metadata_of_any_folder(case, "sks", tmp_path)


def test_a_trigger_word_that_hides_mistakes(monkeypatch, tmp_path):
    monkeypatch.setattr(listed_captions, "is_alone", lambda *given: False)
    with pytest.raises(AssertionError):
        test_captions_found.test_a_trigger_word_hides_no_mistake(tmp_path)
