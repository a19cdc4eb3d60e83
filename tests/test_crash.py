"""`make crash` in small: what Celery and the message queue accepted is done, whatever is killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from stack.compare import Rig, find_redis, suffer
from stack.settings import Settings
from tracing_claims import variants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import OapServer
    from tracing_claims.variants import Fault

REQUESTS = 16


@pytest.fixture(scope="module")
def rig(oap: OapServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    if find_redis() is None:
        pytest.skip("there is no Redis here: apt-get install redis-server")
    grpc, http = (int(where.rpartition(":")[2]) for where in (oap.grpc, oap.url))
    folder = tmp_path_factory.mktemp("crash")
    settings = Settings(_env_file=None, oap_grpc_port=grpc, oap_http_port=http, run_dir=folder)
    with Rig(settings, "redis", SERVICE_VISIBILITY_SECONDS="4") as started:
        yield started


@pytest.mark.parametrize("fault", ["kill", "term", "broker"])
@pytest.mark.parametrize("variant", [variants.CELERY, variants.QUEUE], ids=lambda variant: variant.name)
def test_nothing_is_lost(rig: Rig, oap: OapServer, variant: variants.Variant, fault: Fault) -> None:
    found = suffer(rig, variant, fault, REQUESTS, oap.client)
    assert found.accepted >= REQUESTS // 2
    assert found.accepted + found.refused == REQUESTS
    assert (found.lost, found.dead) == (0, 0)
    assert found.done == found.accepted


def test_what_the_service_held_in_memory_is_lost_and_seen(rig: Rig, oap: OapServer) -> None:
    found = suffer(rig, variants.BACKGROUND_TASK, "kill", REQUESTS, oap.client)
    assert found.lost > 0
    assert found.done + found.lost == found.accepted
    assert found.unfinished is not None
    assert found.shown is not None
    assert found.unfinished >= found.lost >= found.shown > 0
