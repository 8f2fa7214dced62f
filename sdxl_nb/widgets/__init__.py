"""What does one see and press in a notebook?

A configuration or a Run in; widgets out, each with a plain twin, each showing its errors where they happen.
"""

from ..system.lazy import public

__getattr__, __dir__, __all__ = public(
    __name__,
    {
        "Project": "page.project",  # all of these on one page
        "ConfigForm": "form.form",  # a configuration, built
        "DatasetBrowser": "dataset.browser",  # pictures and captions, mended
        "Runs": "overview.overview",  # all runs of a folder, two compared
        "RunMonitor": "monitor.monitor",  # a run, watched
        "ValidationGrid": "grid.grid",  # a run's pictures, step by step
        "LoraPlayground": "playground.playground",  # a LoRA, tried
    },
)
