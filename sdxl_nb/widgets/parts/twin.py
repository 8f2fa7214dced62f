"""The plain twin of a widget, stored beside it: what a page without a kernel shows in its place.

In: a widget with `twin()`, a matplotlib Figure or an object with an HTML form. Out: both in one output, so that
nbconvert, papermill and GitHub show a picture or a table where JupyterLab shows the widget. A twin is of the moment
when its cell ran; `renew` puts a new one in its place, also from a thread.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...system.figures import Sheet


class Twin:
    """Mixed into a widget, before its base: `twin()` is what is shown where widgets are not; None shows nothing."""

    figure: "Callable[[], Sheet]"  # the widget's own, unless its `twin` is another

    _displayed: Any = None  # IPython's handle of the output, once there is one

    def _ipython_display_(self) -> None:
        """Show both in an output that can be renewed later."""
        from IPython.display import display

        self._displayed = display(self._repr_mimebundle_(), raw=True, display_id=True)

    def renew(self) -> None:
        """Store the twin as it is now in the place of the one before."""
        if self._displayed is not None:
            self._displayed.update(self._repr_mimebundle_(), raw=True)

    def twin(self) -> object:
        """The plain twin as it is now."""
        return self.figure()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = super()._repr_mimebundle_(**options)  # type: ignore[misc]  # of the widget that this is mixed into
        view = "application/vnd.jupyter.widget-view+json"
        if not isinstance(bundle, dict) or view not in bundle:
            return bundle
        bundle["text/plain"] = type(self).__name__
        try:
            plain = self.twin()
        except Exception:  # the widget itself says what is wrong
            plain = None
        for kind, form in (("image/png", "_repr_png_"), ("text/html", "_repr_html_")):
            shown = getattr(plain, form)() if hasattr(plain, form) else None
            if shown is not None:
                bundle[kind] = shown
                break
        return bundle
