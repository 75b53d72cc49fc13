"""Types of fields in JSON bodies, which pydantic would otherwise read from values of other types too."""

from typing import Annotated

from pydantic import BeforeValidator, Strict


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole), Strict()]
"""An integer. JSON's 47.0 is one; `true` and `"47"` are none."""
