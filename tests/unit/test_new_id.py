"""Identifiers: 32 hexadecimal digits that nothing repeats."""

from __future__ import annotations

import os
import random
import re

import pytest

from eccos_core.domain import new_id


def test_ids_are_32_hexadecimal_digits_and_differ() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)


def test_seeding_the_shared_generator_repeats_no_id() -> None:
    random.seed(7)
    first = new_id()
    random.seed(7)
    assert new_id() != first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_draws_other_ids() -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, new_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 32).decode() != new_id()
    os.close(read)
    os.close(write)
