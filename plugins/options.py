"""Options: what the options of a plugin are described by, with the habits that all of them want."""

from __future__ import annotations

from pydantic import ConfigDict

from ..clients import options


class Options(options.Options):
    """What a plugin can be told, a field each; what follows a field as a docstring explains it.

    Unknown keys are refused, nothing changes after validation, and no error quotes what was given. A field of
    the type SecretStr is masked everywhere, and may be given as `<field>_file`.
    """

    model_config = ConfigDict(use_attribute_docstrings=True)
