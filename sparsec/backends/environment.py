"""Template name -> Jinja environment: strict about names, silent about nothing, reading packaged templates alone.

Invariant: an undefined variable is an error; the same view renders to the same bytes.
"""

from __future__ import annotations

from functools import cache

import jinja2

from sparsec._resources import read_data


def _load(name: str) -> str | None:
    try:
        return read_data(name)
    except (FileNotFoundError, ValueError):
        return None


@cache
def environment() -> jinja2.Environment:
    """The one environment of all templates; text is code, so nothing is escaped."""
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_load),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template: str, view: object) -> str:
    """The text of `template` (`templates/cpu/forward.cpp.jinja`) for the one variable `view`."""
    return environment().get_template(template).render(view=view)
