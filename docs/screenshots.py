"""`make screenshots`: pictures of the console for the README, from the running stack and a real run.

It sends some 1,000 requests to the service, so that 1,000 tasks run at once, then opens each page in Chromium. The
service must be one whose tasks may be looked at: `SERVICE_PROFILING_ENABLED=true make up`.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
from oap_query import Oap
from playwright.async_api import async_playwright
from stack.settings import exempt_loopback, load_settings
from tracing_claims.variants import VARIANTS

if TYPE_CHECKING:
    from oap_query import Span
    from playwright.async_api import Browser
    from stack.settings import Settings

TARGET: Final = Path(__file__).parent / "screenshots"
CHROMIUM: Final = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
TASKS: Final = 1150
"""Enough that 1,000 run at the same time, though the first ones end before the last begin."""
RATE: Final = 140  # tasks per second: their ten seconds overlap
FAULTS: Final = ("error", "error;times=2", "delay=500ms")


async def main() -> int:
    """Make the traces, then the pictures."""
    settings = load_settings(running=True)
    exempt_loopback()
    try:
        trace_id = await make_traces(settings)
    except httpx.HTTPError as error:
        print(f"the service does not answer ({error or type(error).__name__}): `make up` first", file=sys.stderr)
        return 1
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        await take(browser, settings, "/", "timeline-light", ".timeline[data-bars]:not([data-bars='0'])")
        await take(browser, settings, f"/traces/{trace_id}", "trace-light", ".span-row")
        await take(browser, settings, "/overview", "overview-dark", "td")
        for name, trace in (await run_variants(settings)).items():
            await take_waterfall(browser, settings, trace, f"variant-{name}")
        running = await start_long(settings)
        await take(browser, settings, "/running", "running-light", "td:has-text('long_running_task') a")
        await take(browser, settings, f"/traces/{running}", "trace-running-light", ".span-row")
        await take(browser, settings, "/profile?task=long_running_task&seconds=1", "profile-light", ".flame g")
        await browser.close()
    for path in sorted(TARGET.glob("*.png")):
        print(f"{path.relative_to(Path.cwd())}  {path.stat().st_size // 1024} KB")
    return 0


async def make_traces(settings: Settings) -> str:
    """Send the requests; return the id of a trace worth a look, when all of it has arrived."""
    choice = random.Random(7)  # noqa: S311  # the same picture each time
    limits = httpx.Limits(max_connections=50, keepalive_expiry=2)
    async with httpx.AsyncClient(base_url=settings.service_url, limits=limits, timeout=60, trust_env=False) as client:

        def send() -> asyncio.Task[httpx.Response]:
            kind = choice.random()
            headers = {"X-Fault": choice.choice(FAULTS)} if choice.random() < 0.03 else {}  # noqa: PLR2004
            if kind < 0.6:  # noqa: PLR2004
                request = client.get("/test", headers=headers)
            elif kind < 0.8:  # noqa: PLR2004
                request = client.post("/action", headers=headers)
            elif kind < 0.9:  # noqa: PLR2004
                request = client.post("/process", json={"id": choice.randrange(10**9)}, headers=headers)
            else:
                request = client.post("/complex-action", headers=headers)
            return asyncio.create_task(request)

        began, sent = time.monotonic(), []
        print(f"sending {TASKS:,} requests")
        for number in range(TASKS):
            sent.append(send())
            await asyncio.sleep(max(0, began + number / RATE - time.monotonic()))
        for answer in await asyncio.gather(*sent):
            answer.raise_for_status()
        telling = await client.post("/complex-action", params={"duration": 2}, headers={"X-Fault": "error;times=2"})
    trace_id = telling.headers["X-Trace-Id"]
    print("waiting for the last tasks and their traces")
    await asyncio.sleep(12)
    oap = Oap(settings.oap_url)
    await asyncio.to_thread(oap.wait_for_trace, trace_id, lambda spans: sum(bool(span.refs) for span in spans) == 3)  # noqa: PLR2004
    await asyncio.sleep(5)
    return trace_id


async def run_variants(settings: Settings) -> dict[str, str]:
    """Ask for the work in each of the ways; return their traces, by the way's name, when they are complete."""
    traces = {}
    async with httpx.AsyncClient(base_url=settings.service_url, timeout=60, trust_env=False) as client:
        for variant in VARIANTS:
            await client.get(variant.path, params={"duration": 0})  # its processes and connections
            answer = await client.get(variant.path, params={"duration": 2})
            if answer.is_success:  # without a broker, two of them are not there
                traces[variant.name] = answer.headers["X-Trace-Id"]
    oap, spans = Oap(settings.oap_url), {variant.name: variant.span for variant in VARIANTS}
    for name, trace_id in traces.items():
        await asyncio.to_thread(oap.wait_for_trace, trace_id, partial(has_span, spans[name]))
    return traces


def has_span(name: str, spans: list[Span]) -> bool:
    """Say whether a trace has a span of this name."""
    return any(span.name == name for span in spans)


async def take_waterfall(browser: Browser, settings: Settings, trace_id: str, name: str) -> None:
    """Save the picture of one trace, without what is around it."""
    context = await browser.new_context(viewport={"width": 1000, "height": 700}, color_scheme="light")
    page = await context.new_page()
    await page.goto(f"{settings.console_url}/traces/{trace_id}")
    await page.locator(".span-row").first.wait_for()
    await page.wait_for_timeout(1000)
    await page.locator(".waterfall").screenshot(path=TARGET / f"{name}.png")
    await context.close()


async def start_long(settings: Settings) -> str:
    """Start tasks that still run when their pictures are taken; return the id of one of their traces."""
    async with httpx.AsyncClient(base_url=settings.service_url, timeout=60, trust_env=False) as client:
        for path in ("/test", "/action", "/complex-action"):
            answer = await client.request("GET" if path == "/test" else "POST", path, params={"duration": 55})
            answer.raise_for_status()
    await asyncio.sleep(8)
    trace_id: str = answer.headers["X-Trace-Id"]
    return trace_id


async def take(browser: Browser, settings: Settings, path: str, name: str, sign: str) -> None:
    """Open a page, wait until there is what it is about, save it; its name says whether in light or dark colours."""
    context = await browser.new_context(
        viewport={"width": 1400, "height": 980}, color_scheme="dark" if name.endswith("-dark") else "light"
    )
    page = await context.new_page()
    await page.goto(settings.console_url + path)
    if path.startswith("/profile"):
        await page.get_by_role("button", name="Look", exact=True).click()
    await page.locator(sign).first.wait_for()
    if path == "/":
        await page.get_by_role("button", name="1 min").click()
    elif path.startswith("/traces/"):
        await page.get_by_role("button", name="Close all").click()
    await page.wait_for_timeout(4000)
    await page.screenshot(path=TARGET / f"{name}.png")
    await context.close()


if __name__ == "__main__":
    if not Path(CHROMIUM).exists():
        sys.exit(f"there is no Chromium at {CHROMIUM}: install it, or name it in CHROMIUM")
    TARGET.mkdir(exist_ok=True)
    sys.exit(asyncio.run(main()))
