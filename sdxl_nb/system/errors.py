"""What goes wrong, said to the person: one sentence with what is wrong and what to do."""


class SdxlNbError(Exception):
    """An error whose message is one sentence for the user; the command line prints it without a traceback."""


class ConfigError(SdxlNbError, ValueError):
    """A setting, or a combination of settings, that cannot work. The command line exits with 2."""

    problems: dict[str, str]  # each wrong field with its sentence; there where fields are what is wrong


class Stopped(SdxlNbError):
    """A run was asked to stop while it prepared its first step; no failure."""


class DataError(SdxlNbError):
    """Pictures or captions that cannot be used as they are."""


class ModelError(SdxlNbError):
    """A base model, VAE or LoRA file that cannot be used as it is."""
