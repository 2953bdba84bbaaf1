import pytest

from eccos_core.domain import Capability, Model, Request
from eccos_core.errors import NoEligibleModelError, UnknownModelError
from eccos_core.routing.eligibility import eligibility_mask, needs_of

SMALL = Model("small", 1e-7, 1e-7, context_window=100)
TOOLS = Model(
    "tools",
    1e-6,
    1e-6,
    context_window=1000,
    capabilities=frozenset({Capability.TOOLS, Capability.STREAMING}),
    tags=frozenset({"eu", "private"}),
)
EYES = Model("eyes", 1e-5, 1e-5, capabilities=frozenset({Capability.VISION, Capability.JSON_SCHEMA}))
POOL = (SMALL, TOOLS, EYES)
PICTURE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}


def allowed(request: Request, tokens: int = 10, *, streaming: bool = False) -> set[str]:
    mask = eligibility_mask([request], POOL, [tokens], streaming=streaming)[0]
    return {model.name for model, may in zip(POOL, mask, strict=True) if may}


def test_a_plain_question_may_go_anywhere() -> None:
    assert allowed(Request.of("hello")) == {"small", "tools", "eyes"}


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Request.of("hi", parameters={"tools": [{"type": "function"}]}), {"tools"}),
        (Request.of([PICTURE]), {"eyes"}),
        (Request.of("hi", parameters={"response_format": {"type": "json_schema"}}), {"eyes"}),
        (Request.of("hi", parameters={"response_format": {"type": "json_object"}}), {"small", "tools", "eyes"}),
        (Request.of("hi", required_tags=frozenset({"eu"})), {"tools"}),
        (Request.of("hi", allow=frozenset({"small", "eyes"})), {"small", "eyes"}),
        (Request.of("hi", deny=frozenset({"small"})), {"tools", "eyes"}),
        (Request.of("hi", needs=frozenset({Capability.VISION})), {"eyes"}),
        (Request.of("hi", parameters={"max_tokens": 500}), {"tools", "eyes"}),
        (Request.of("hi", parameters={"max_completion_tokens": 5000}), {"eyes"}),
    ],
)
def test_a_model_that_cannot_do_it_is_ruled_out(request_: Request, expected: set[str]) -> None:
    assert allowed(request_) == expected


def test_the_context_window_holds_input_and_output_together() -> None:
    exactly_full = Request.of("hi", parameters={"max_tokens": 90})
    assert "small" in allowed(exactly_full, tokens=10)
    assert "small" not in allowed(exactly_full, tokens=11)


def test_streaming_is_a_need_only_when_streaming() -> None:
    assert allowed(Request.of("hi"), streaming=True) == {"small", "tools"}


def test_parallel_tool_calls_are_a_need_of_their_own() -> None:
    request = Request.of("hi", parameters={"tools": [{}], "parallel_tool_calls": True})
    assert needs_of(request) == {Capability.TOOLS, Capability.PARALLEL_TOOLS}


def test_when_nothing_is_left_every_model_says_why() -> None:
    request = Request.of(
        [PICTURE], id="r1", parameters={"tools": [{}]}, deny=frozenset({"small"}), required_tags=frozenset({"eu"})
    )
    with pytest.raises(NoEligibleModelError) as caught:
        allowed(request)
    assert caught.value.reasons == {
        "small": "on the request's deny list",
        "tools": "cannot do vision",
        "eyes": "lacks the tag eu",
    }
    assert "'r1'" in str(caught.value)


def test_a_misspelt_model_in_an_allow_list_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(UnknownModelError, match="did you mean 'small'"):
        allowed(Request.of("hi", allow=frozenset({"smal"})))


def test_among_many_each_request_has_the_models_that_it_has_alone() -> None:
    asked = [
        Request.of("plain"),
        Request.of([PICTURE]),
        Request.of("plain, too long for small"),
        Request.of("hi", required_tags=frozenset({"eu"})),
        Request.of("hi", parameters={"max_tokens": 500}),
    ]
    tokens = [10, 10, 100, 10, 10]
    mask = eligibility_mask(asked, POOL, tokens)
    for row, (request, count) in enumerate(zip(asked, tokens, strict=True)):
        assert mask[row].tolist() == eligibility_mask([request], POOL, [count])[0].tolist()
    assert mask[2].tolist() == [False, True, True]


def test_a_plain_request_that_fits_nowhere_says_so_for_every_model() -> None:
    with pytest.raises(NoEligibleModelError) as caught:
        eligibility_mask([Request.of("short"), Request.of("long", id="r2")], (SMALL, TOOLS), [10, 5000])
    assert "'r2'" in str(caught.value)
    assert "context window of 100 tokens" in caught.value.reasons["small"]
