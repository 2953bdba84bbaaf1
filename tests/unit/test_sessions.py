from dataclasses import replace

import numpy as np

from eccos_core.domain import Completion, Model, Request
from eccos_core.routing.pricing import cost_usd
from eccos_core.routing.sessions import Sessions

CACHING = Model("caching", 10e-6, 10e-6, usd_per_cached_input_token=1e-6)
OTHER = Model("other", 6e-6, 6e-6)
POOL = (CACHING, OTHER)


def completion(model: str, tokens: int = 900) -> Completion:
    return Completion("text", model, tokens, 100, 0.0, 0.1)


def cost(sessions: Sessions, session_id: str | None, tokens: float = 1200.0) -> np.ndarray:
    request = Request.of("go on", session_id=session_id)
    cached = sessions.cached_tokens([request], POOL, np.array([tokens]))
    return cost_usd(POOL, np.array([tokens]), np.zeros((1, 2)), cached)[0]


def test_leaving_a_model_costs_its_prompt_cache() -> None:
    sessions = Sessions()
    assert cost(sessions, "s")[0] > cost(sessions, "s")[1]  # a new conversation: the other model is cheaper
    sessions.record_completion("s", completion("caching"))
    staying, leaving = cost(sessions, "s")
    np.testing.assert_allclose(staying, 1000 * 1e-6 + 200 * 10e-6)
    np.testing.assert_allclose(leaving, 1200 * 6e-6)
    assert staying < leaving


def test_another_conversation_and_no_conversation_get_no_discount() -> None:
    sessions = Sessions()
    sessions.record_completion("s", completion("caching"))
    sessions.record_completion(None, completion("caching"))
    np.testing.assert_allclose(cost(sessions, "t"), cost(sessions, None))
    assert sessions.model_of("t") is None


def test_no_more_is_cached_than_the_input_has() -> None:
    sessions = Sessions()
    sessions.record_completion("s", completion("caching"))
    np.testing.assert_allclose(cost(sessions, "s", tokens=50.0)[0], 50 * 1e-6)


def test_a_session_that_was_idle_is_new() -> None:
    now = [0.0]
    sessions = Sessions(idle_s=60, clock=lambda: now[0])
    sessions.record_completion("s", completion("caching"))
    now[0] = 60.0
    assert sessions.model_of("s") == "caching"
    now[0] = 60.1
    assert sessions.model_of("s") is None


def test_the_longest_unused_session_is_forgotten_first() -> None:
    sessions = Sessions(max_sessions=2)
    for name in ("a", "b", "a", "c"):
        sessions.record_completion(name, completion("other"))
    assert [sessions.model_of(name) for name in "abc"] == ["other", None, "other"]


def test_a_model_that_left_the_pool_gives_no_discount() -> None:
    sessions = Sessions()
    sessions.record_completion("s", completion("removed"))
    np.testing.assert_allclose(cost(sessions, "s"), cost(sessions, None))


def test_a_model_that_was_left_keeps_what_it_saw() -> None:
    sessions = Sessions()
    sessions.record_completion("s", completion("caching"))
    sessions.record_completion("s", completion("other", tokens=1100))
    assert sessions.model_of("s") == "other"
    np.testing.assert_allclose(cost(sessions, "s", tokens=1500.0), [1000 * 1e-6 + 500 * 10e-6, 1500 * 6e-6])
    sessions.record_completion("s", completion("caching", tokens=1400))
    assert sessions.model_of("s") == "caching"
    np.testing.assert_allclose(cost(sessions, "s", tokens=1600.0)[0], 1500 * 1e-6 + 100 * 10e-6)


def test_each_model_of_a_session_loses_its_cache_at_its_own_time() -> None:
    now = [0.0]
    sessions = Sessions(idle_s=3600, cache_s=60, clock=lambda: now[0])
    sessions.record_completion("s", completion("caching"))
    now[0] = 40.0
    sessions.record_completion("s", completion("other"))
    now[0] = 61.0
    assert sessions.model_of("s") == "other"
    np.testing.assert_allclose(cost(sessions, "s")[0], 1200 * 10e-6)


def test_a_cache_lives_for_minutes_unless_its_model_says_otherwise() -> None:
    now = [0.0]
    sessions = Sessions(clock=lambda: now[0])
    lasting = replace(CACHING, name="lasting", cache_lifetime_s=1_000.0)
    tokens = np.array([1500.0])

    def cached() -> list[float]:
        found = sessions.cached_tokens([Request.of("go on", session_id="s")], (CACHING, lasting), tokens)
        return [0.0, 0.0] if found is None else found[0].tolist()

    sessions.record_completion("s", completion("caching"))
    sessions.record_completion("s", completion("lasting"))
    now[0] = 300.0
    assert cached() == [1000.0, 1000.0]
    now[0] = 301.0
    assert cached() == [0.0, 1000.0]
    assert sessions.model_of("s") == "lasting", "the conversation itself is remembered for longer"
    now[0] = 1_001.0
    assert cached() == [0.0, 0.0]
