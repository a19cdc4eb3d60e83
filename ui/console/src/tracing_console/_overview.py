"""x"""

from nicegui import ui
from tracing_console._frame import frame

def add(console):
    @ui.page("/overview")
    def p():
        with frame(console, "overview", "/overview"):
            ui.label("x")
