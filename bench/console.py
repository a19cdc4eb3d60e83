"""How fast the console's timeline is with 10 000 bars: time to first paint, and frame times while zooming and panning.

Run `make up` first, then `python bench/console.py`. It sends 10 000 requests to the running service, waits until OAP
has their tasks, then opens the console in Chromium. Everything is real, and shares this machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import httpx
from oap_query import Oap, segments
from playwright.async_api import async_playwright
from stack.settings import exempt_loopback, load_settings

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, Page
    from stack.settings import Settings

BARS: Final = 10_000
RATE: Final = 250  # requests per second
TASK_SECONDS: Final = 5
GESTURE_SECONDS: Final = 4.0  # of zooming, and as many of panning
CHROMIUM: Final = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip

DRAWN: Final = "bars => Number(document.querySelector('.timeline')?.dataset.bars) >= bars"
RECORD: Final = """() => {
    window.frames_ = [];
    let before;
    const tick = now => { if (before) window.frames_.push(now - before); before = now; window.tick_ = requestAnimationFrame(tick); };
    requestAnimationFrame(tick);
}"""  # noqa: E501
STOP: Final = "() => { cancelAnimationFrame(window.tick_); return window.frames_; }"
PAINT: Final = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"


async def main() -> None:
    """Fill, look, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bars", type=int, default=BARS)
    bars = parser.parse_args().bars
    settings = load_settings(running=True)
    exempt_loopback()
    await fill(settings, bars)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = await browser.new_context(viewport={"width": 1400, "height": 1000})
        print(
            f"{bars:,} bars and as many dots, Chromium {browser.version} without a GPU, "
            f"{os.cpu_count()} cores with a load of {os.getloadavg()[0]:.1f}"
        )
        for visit in ("first visit", "second visit"):
            await visit_once(context, settings, bars, visit)
        page = await context.new_page()
        await page.goto(settings.console_url)
        await page.wait_for_function(DRAWN, arg=bars, timeout=60_000)
        print(report("at rest, live", await gesture(page, "rest")))
        print(report("zooming", await gesture(page, "zoom")))
        print(report("panning", await gesture(page, "pan")))
        await browser.close()


async def fill(settings: Settings, bars: int) -> None:
    """Send the requests, and wait until OAP has a segment of each task."""
    began = datetime.now(UTC)
    async with httpx.AsyncClient(
        base_url=settings.service_url,
        trust_env=False,
        timeout=60,
        limits=httpx.Limits(max_connections=50, keepalive_expiry=2),
    ) as client:
        start = time.monotonic()
        sending = set()
        for number in range(bars):
            await asyncio.sleep(max(0, start + number / RATE - time.monotonic()))
            sending.add(asyncio.create_task(client.get("/test", params={"duration": TASK_SECONDS})))
        answers = await asyncio.gather(*sending)
    print(f"{len(answers):,} requests in {time.monotonic() - start:.0f} s")
    await asyncio.sleep(TASK_SECONDS)
    oap, found = Oap(settings.oap_url), 0
    deadline = time.monotonic() + 60
    while found < bars and time.monotonic() < deadline:
        rows = segments(oap, began - timedelta(seconds=1), service=settings.service_name)
        found = sum(not row.request for page in rows for row in page)
        await asyncio.sleep(1)
    print(f"{found:,} tasks in OAP")


async def visit_once(context: BrowserContext, settings: Settings, bars: int, title: str) -> None:
    """Open the timeline and time it."""
    page = await context.new_page()
    began = time.perf_counter()
    await page.goto(settings.console_url, wait_until="commit")
    await page.wait_for_function(DRAWN, arg=bars, timeout=60_000)
    drawn = (time.perf_counter() - began) * 1000
    data = await page.evaluate(
        "() => performance.getEntriesByType('resource').filter(one => one.name.includes('/data/timeline'))"
        ".map(one => [one.duration, one.encodedBodySize, one.decodedBodySize])"
        ".reduce((sum, one) => sum.map((value, at) => value + one[at]), [0, 0, 0])"
    )
    print(
        f"{title}: first contentful paint {await page.evaluate(PAINT):.0f} ms, all bars drawn after {drawn:.0f} ms "
        f"(data: {data[0]:.0f} ms, {data[1] / 1024:.0f} KiB on the wire, {data[2] / 1024:.0f} KiB unpacked)"
    )
    await page.close()


async def gesture(page: Page, kind: str) -> list[float]:
    """Do something with the chart for some seconds and return the times between its frames in ms."""
    box = await page.locator(".timeline .plot").bounding_box()
    assert box is not None  # noqa: S101  # it was drawn
    x, y = box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.3
    await page.mouse.move(x, y)
    if kind == "pan":
        await page.mouse.down()
    await page.evaluate(RECORD)
    end, step = time.monotonic() + GESTURE_SECONDS, 0
    while time.monotonic() < end:
        step += 1
        if kind == "zoom":
            await page.mouse.wheel(0, -60 if step % 60 < 30 else 60)  # noqa: PLR2004  # in and out again
        elif kind == "pan":
            await page.mouse.move(x + (step * 7) % 300 - 150, y)
        await asyncio.sleep(0.012)
    frames: list[float] = await page.evaluate(STOP)
    if kind == "pan":
        await page.mouse.up()
    return frames


def report(title: str, frames: list[float]) -> str:
    """Sum frame times up."""
    cuts = statistics.quantiles(frames, n=100)
    slow = sum(frame > 50 for frame in frames) / len(frames)  # noqa: PLR2004  # what a hand feels
    return (
        f"{title}: {len(frames)} frames, median {statistics.median(frames):.1f} ms, 95 % {cuts[94]:.1f} ms, "
        f"longest {max(frames):.0f} ms, {slow:.1%} over 50 ms"
    )


if __name__ == "__main__":
    asyncio.run(main())
