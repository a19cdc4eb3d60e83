from __future__ import annotations

import os
import re

from skywalking.trace import ID
from skywalking_background._ids import new_id
from skywalking_background._internals import use_ids


def test_ids_look_like_the_agents_own_and_never_repeat() -> None:
    ids = [new_id() for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in ids)


def test_the_agent_takes_them_and_keeps_those_that_it_is_given() -> None:
    use_ids(new_id)
    before = int(new_id()[:16], 16)
    assert int(str(ID())[:16], 16) == before + 1
    assert str(ID("given")) == "given"


def test_a_forked_process_has_ids_of_its_own() -> None:
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, new_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 32).decode()[16:] != new_id()[16:]
