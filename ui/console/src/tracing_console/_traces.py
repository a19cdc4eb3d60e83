"""x"""

from nicegui import ui
from tracing_console._frame import frame

def add(console):
    @ui.page("/traces")
    def p():
        with frame(console, "traces", "/traces"):
            ui.label("x")
