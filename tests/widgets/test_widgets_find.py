"""The form finds a setting by a word, wherever it is folded, and makes the widgets of no other group for it."""

import pytest
from ipywidgets.widgets.widget import _instances

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.widgets.form.form import ConfigForm

pytestmark = pytest.mark.slow


def test_a_setting_is_found_wherever_it_is_folded():
    form = ConfigForm(TrainConfig.preset("tiny"))
    before = len(_instances)
    form._find.value = "Prodigy beta3"
    assert [name for name, editor in form._editors.items() if editor.shown] == ["prodigy_beta3"]
    assert [group for group, fold in form._folds.items() if fold.unfolded] == ["optimization"]
    assert [group for group, fold in form._folds.items() if fold.layout.display is None] == ["optimization"]
    rows = {name: form._editors[name].row.layout.display for name in ("rank", "prodigy_beta3", "adam_beta1")}
    assert rows == {"rank": "none", "prodigy_beta3": None, "adam_beta1": "none"}
    assert form._editors["use_dora"]._parts is None and len(_instances) > before
    form._find.value = "zarko"
    assert "No setting has “zarko”" in form._found.value and not any(fold.unfolded for fold in form._folds.values())
    form._find.value = ""
    assert all(editor.shown for editor in form._editors.values()) and form._found.value == ""
    assert {fold.layout.display for fold in form._folds.values()} == {None}
    assert form._editors["rank"].row.layout.display is None
