"""x"""

from nicegui import ui
from tracing_console._frame import frame

def add(console):
    @ui.page("/try")
    def p():
        with frame(console, "try", "/try"):
            ui.label("x")
