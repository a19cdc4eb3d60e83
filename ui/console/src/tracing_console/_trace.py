"""x"""

from nicegui import ui
from tracing_console._frame import frame

def add(console):
    @ui.page("/trace")
    def p():
        with frame(console, "trace", "/trace"):
            ui.label("x")
