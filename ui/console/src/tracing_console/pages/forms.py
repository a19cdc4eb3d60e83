"""The fields of the pages' forms. What a reader types in one stays while the page around it is updated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracing_console.pages.frame import tag, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nicegui import ui


def entry(label: str, value: str = "") -> ui.element:
    """Make an input with a label; `value` is what stands in it at first."""
    with tag("label"):
        text("span", label)
        field = tag("input")
    # The property `value` would be set again with each update of the page, over what is typed.
    field.props["defaultValue"] = value
    return field


def number(label: str, value: str, least: int, most: int, *, step: str = "any") -> ui.element:
    """Make an input for a number that must be given."""
    field = entry(label, value).classes("short")
    return field.props(f'type="number" required min="{least}" max="{most}" step="{step}"')


def choice(label: str, choices: Mapping[str, str], chosen: str = "") -> ui.element:
    """Make a select element with a label: `choices` are texts by value."""
    with tag("label"):
        text("span", label)
        select = tag("select")
    options(select, choices, chosen)
    return select


def options(select: ui.element, choices: Mapping[str, str], chosen: str) -> None:
    """Replace the options of a select element: `choices` are texts by value."""
    select.clear()
    with select:
        for value, label in choices.items():
            option = text("option", label)
            option.props["value"] = value
            if value == chosen:
                option.props["selected"] = True


def names_or_all(names: Sequence[str]) -> dict[str, str]:
    """Return choices of these names and one for all."""
    return {"": "all", **{name: name for name in names}}
