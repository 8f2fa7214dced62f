"""Children of a box that are exchanged: the old ones are gone from the kernel, and from what is stored."""

from ipywidgets import HTML, Button, HBox, VBox, Widget

from sdxl_nb.widgets.parts.children import replace
from sdxl_nb.widgets.parts.pictures import PictureButton


def open_widgets():
    return set(Widget.get_manager_state()["state"])


def test_what_is_replaced_is_closed_with_all_that_belongs_to_it_and_what_stays_is_not():
    box, stays = VBox(), Button(description="stays")
    replace(box, [stays])
    before = open_widgets()
    old = [VBox([HBox([Button()]), HTML("x")]), PictureButton()]
    replace(box, [stays, *old])
    assert len(open_widgets()) > len(before) + 6 and box.children == (stays, *old)
    replace(box, [stays])
    assert open_widgets() == before and box.children == (stays,)
    assert stays.comm is not None and old[0].comm is None
