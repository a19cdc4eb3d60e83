"""The console's own elements. Each is a Vue component in `web/`, one file each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nicegui import ui
from nicegui.elements import echart  # registers the ECharts that comes with NiceGUI  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


WEB: Final = Path(__file__).parent / "web"


class Timeline(ui.element, component="web/timeline.js", esm={"console-picture": "web/picture"}):
    """Every task a bar, every request a dot. The browser fetches the data itself, only what is new each time."""

    def __init__(self, service_url: str) -> None:
        super().__init__()
        self.props["service"] = service_url


class Waterfall(ui.element, component="web/waterfall.js"):
    """The spans of one trace."""

    def show(self, rows: Sequence[dict[str, Any]], services: Sequence[str], now_ms: int) -> None:
        """Draw rows, as `pages.rows` makes them; `now_ms` is the console's clock, until which running tasks last."""
        self.props["rows"], self.props["services"], self.props["now"] = rows, services, now_ms
        self.update()

    def on_cancel(self, handler: Callable[[str], Any]) -> None:
        """Call `handler(task id)` when the reader cancels a running task."""
        self.on("cancel", lambda event: handler(event.args))


class Grid(ui.element, component="web/grid.js"):
    """A table; on a phone each row is a card. A cell is text, or a dict with `text` and its style or actions."""

    def __init__(self, columns: Sequence[dict[str, str]], empty: str) -> None:
        super().__init__()
        self.props["columns"], self.props["rows"], self.props["empty"] = columns, [], empty

    def show(self, rows: Sequence[dict[str, Any]], now_ms: int = 0) -> None:
        """Replace the rows. Each has a `key` that identifies it from one refresh to the next.

        `now_ms` is the console's clock, for cells that show how long ago something began.
        """
        if rows != self.props["rows"]:
            self.props["rows"], self.props["now"] = rows, now_ms
            self.update()

    def show_columns(self, columns: Sequence[dict[str, str]]) -> None:
        """Replace the columns."""
        if columns != self.props["columns"]:
            self.props["columns"] = columns
            self.update()

    def show_when_empty(self, sentence: str) -> None:
        """Show this sentence while there are no rows."""
        if sentence != self.props["empty"]:
            self.props["empty"] = sentence
            self.update()

    def on_action(self, handler: Callable[[str, str], Any]) -> None:
        """Call `handler(action, row's key)` when a button in a cell is pressed."""
        self.on("action", lambda event: handler(*event.args))


class Picture(ui.element, component="web/lanes.js"):
    """The requests and tasks of one side of an incident, each a lane."""

    def __init__(self, label: str, lanes: Sequence[dict[str, Any]], seconds: float) -> None:
        """Draw lanes, `{"label", "trace_id", "pieces": [{"start", "end", "tone"}, ...]}`, on a scale of `seconds`."""
        super().__init__()
        self.props["label"], self.props["lanes"], self.props["seconds"] = label, list(lanes), seconds


class Trend(ui.element, component="web/trend.js"):
    """Curves over time."""

    def __init__(self, title: str, unit: str, *, logarithmic: bool = False, top: float | None = None) -> None:
        super().__init__()
        self.props["title"], self.props["unit"], self.props["logarithmic"] = title, unit, logarithmic
        self.props["top"], self.props["series"] = top, []

    def show(self, series: Sequence[dict[str, Any]]) -> None:
        """Draw `[{"name", "points": [[ms, value], ...]}, ...]`."""
        if series != self.props["series"]:
            self.props["series"] = series
            self.update()


class Flame(ui.element, component="web/flame.js"):
    """A flame picture: the outermost call on top, each frame as wide as its share of the samples."""

    def show(self, frames: Sequence[dict[str, Any]], samples: int) -> None:
        """Draw frames, as `data.frames` lays them out; `samples` is the width of the whole."""
        self.props["frames"], self.props["samples"] = frames, samples
        self.update()
