"""Where Locust starts: the users and the load shape of the scenario that `LOAD_SCENARIO` names (`smoke` without it).

With `--class-picker` and without a scenario, all of them are there to choose from in the web page; a `--worker` has all
as well, and does what its master says. A scenario is a module in `scenarios/`; everything else here is what they share.
This folder needs Locust, `request_guard` (`ui/guard`) and `tracing_claims` (`stack/claims`).
"""

from __future__ import annotations

import os
import pkgutil
import sys
from importlib import import_module
from pathlib import Path

import client_spans  # noqa: F401  # listens to Locust's events, as `guard` does
import guard  # noqa: F401  # likewise
import limits
import options

SCENARIOS = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / "scenarios")]))

wanted = os.environ.get("LOAD_SCENARIO", "").replace("-", "_")
if wanted and wanted not in SCENARIOS:
    sys.exit(f"there is no scenario {wanted!r}: LOAD_SCENARIO is one of {', '.join(SCENARIOS)}")
everything = not {"--class-picker", "--worker"}.isdisjoint(sys.argv)
names = [wanted] if wanted else SCENARIOS if everything else ["smoke"]
for name in names:
    # Locust takes what it finds by name in this module.
    globals().update(vars(import_module(f"scenarios.{name}")))
if len(names) > 1:
    options.forget_defaults()
    limits.forget()
