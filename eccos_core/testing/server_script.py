"""What the test server says to a request: a deterministic function of its content.

The last user message may hold directives in double square brackets; all others are echoed. Several user messages in a
row count as one, as coding agents add reminders of their own after yours.

    [[say TEXT]]              answer TEXT                      [[empty]]          answer ""
    [[tool NAME {"a": 1}]]    call a tool (repeatable)         [[broken-tool NAME]]  ... with arguments that are no JSON
    [[tokens 100 20]]         report this usage                [[cached 50]] [[reasoning 9]]  parts of it
    [[latency 0.2]]           think for so many seconds        [[filtered]]       finish_reason content_filter
    [[status 429 retry-after=1]]  an error, with headers       [[times 2]]        only the first two times, then answer
    [[reset]]                 break the connection             [[cut 3]]          break the stream after 3 chunks
    [[end 3]]                 end the stream early, politely   [[malformed]]      answer with broken JSON
    [[no-choices]]            an answer without choices        [[context]]        a context-window error
    [[policy]]                a content-policy error           [[no-usage]]       report no usage
    [[drip]]                  keep-alives, and no answer ever  [[html]]           a web page, with status 200
    [[json]]                  one JSON document, also where a stream was asked for
    [[refuse NAME]]           status 400 where the body has the parameter NAME

Several requests in one call are answered one by one, see `packed_script`.
A server's `script` adds directives to messages that cannot hold any: text that the message contains -> directives.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from eccos_core.testing.packed_script import packed_text

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_BARE_FAULTS = ("reset", "malformed", "no-choices", "drip", "html", "json")
DIRECTIVE = re.compile(r"\[\[([a-z-]+)(?:\s+(.*?))?\]\]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ScriptedReply:
    """What to do with one request."""

    text: str
    tool_calls: Sequence[tuple[str, str]] = ()  # (name, arguments as the model wrote them)
    finish_reason: str = "stop"
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    latency_s: float = 0.0
    usage: bool = True
    fault: str | None = None  # status, or the name of a directive
    status: int = 200
    error: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: int = 0  # chunks before a cut
    times: int | None = None  # how often the fault happens for this text; None: always


def body_problem(body: Any) -> str | None:
    """Say what makes a body no chat completion request. A real server answers it with status 400."""
    messages = body.get("messages") if isinstance(body, Mapping) else None
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        return "messages must be a list of objects"
    for message in messages:
        content = message.get("content")
        if isinstance(content, list) and all(isinstance(part, Mapping) for part in content):
            content = "".join(str(part.get("text") or "") for part in content)
        if not (message.get("role") in ROLES and (content is None or isinstance(content, str))):
            return "a message needs a known role, and a text or parts as its content"
    return None


def plan_reply(body: Mapping[str, Any], script: Mapping[str, str] | None = None) -> ScriptedReply:
    """The plan for a chat completion request. `script`: text in the last user message -> directives that it implies."""
    messages = body.get("messages") or [{}]
    asked = _last_asked(messages)
    asked += "".join(directives for text, directives in (script or {}).items() if text in asked)
    directives = [(name, (argument or "").strip()) for name, argument in DIRECTIVE.findall(asked)]
    given = dict(directives)
    tools = () if messages[-1].get("role") == "tool" else _tool_calls(body, directives)
    text = "" if tools else packed_text(asked, partial(_item_text, body)) or _text(body, messages[-1], asked, given)
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    words = text.split(" ")
    finish = "tool_calls" if tools else "stop"
    if limit is not None and len(words) > limit:
        text, finish = " ".join(words[:limit]), "length"
    if "filtered" in given:
        text, finish = "", "content_filter"
    counted = [int(number) for number in given.get("tokens", "").split()] or [
        sum(len(text_of(message).split()) for message in messages),
        len(text.split()) + sum(len(arguments.split()) + 1 for _, arguments in tools),
    ]
    return ScriptedReply(
        text=text,
        tool_calls=tools,
        finish_reason=finish,
        input_tokens=counted[0],
        output_tokens=counted[1],
        cached_tokens=int(given.get("cached", 0)),
        reasoning_tokens=int(given.get("reasoning", 0)),
        usage="no-usage" not in given,
        latency_s=float(given.get("latency", 0)),
        times=int(given["times"]) if "times" in given else None,
        **_fault(given, body),
    )


def _last_asked(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of the last user message, and of user messages right before it."""
    end = next((place for place in reversed(range(len(messages))) if messages[place].get("role") == "user"), None)
    if end is None:
        return text_of(messages[-1])
    start = end
    while start > 0 and messages[start - 1].get("role") == "user":
        start -= 1
    return "\n".join(text_of(message) for message in messages[start : end + 1])


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message, of its text parts when it has parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if part.get("type") == "text")


def _text(body: Mapping[str, Any], last: Mapping[str, Any], asked: str, given: Mapping[str, str]) -> str:
    if "empty" in given:
        return ""
    if last.get("role") == "tool":
        return f"The tool said: {text_of(last)}"
    if "say" in given:
        return given["say"]
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        return json.dumps(example(wanted["json_schema"].get("schema", {})))
    if wanted.get("type") == "json_object":
        return json.dumps({"echo": asked})
    return f"You said: {DIRECTIVE.sub('', asked).strip()}"


def _item_text(body: Mapping[str, Any], item: str) -> str:
    """The answer to one request of several in a call."""
    directives = {name: (argument or "").strip() for name, argument in DIRECTIVE.findall(item)}
    return _text(body, {"role": "user", "content": item}, item, directives)


def _tool_calls(body: Mapping[str, Any], directives: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    calls = []
    for name, argument in directives:
        tool, _, arguments = argument.partition(" ")
        if name == "tool":
            calls.append((tool, arguments or "{}"))
        if name == "broken-tool":
            calls.append((tool, '{"broken": '))
    choice = body.get("tool_choice")
    offered = {tool["function"]["name"]: tool["function"] for tool in body.get("tools") or []}
    if not calls and offered and choice not in (None, "auto", "none"):
        wanted = choice["function"]["name"] if isinstance(choice, Mapping) else next(iter(offered))
        calls.append((wanted, json.dumps(example(offered[wanted].get("parameters", {})))))
    return calls


def example(schema: Mapping[str, Any], root: Mapping[str, Any] | None = None) -> Any:
    """The plainest value that a JSON schema accepts."""
    root = schema if root is None else root
    if "$ref" in schema:
        target: Any = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        return example(target, root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for several in ("anyOf", "oneOf", "allOf"):
        if schema.get(several):
            return example(schema[several][0], root)
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "array":
        return [example(schema.get("items", {"type": "string"}), root)] * max(1, schema.get("minItems", 1))
    if kind == "object":
        return {name: example(inner, root) for name, inner in schema.get("properties", {}).items()}
    least = schema.get("minimum", 1)
    return {"string": "text", "integer": int(least), "number": float(least), "boolean": True}.get(kind)


def _fault(given: Mapping[str, str], body: Mapping[str, Any]) -> dict[str, Any]:
    if given.get("refuse") in body:
        message = f"Unsupported parameter: '{given['refuse']}' is not supported with this model."
        error = {"message": message, "type": "invalid_request_error", "code": "unsupported_parameter"}
        return {"fault": "status", "status": 400, "error": error}
    if "status" in given:
        status, *headers = given["status"].split()
        error = {"message": f"scripted error {status}", "type": "scripted", "code": status}
        return {
            "fault": "status",
            "status": int(status),
            "error": error,
            "headers": dict(header.split("=", 1) for header in headers),
        }
    if "context" in given:
        message = "This model's maximum context length is 100 tokens. However, your messages resulted in 101 tokens."
        error = {"message": message, "type": "invalid_request_error", "code": "context_length_exceeded"}
        return {"fault": "status", "status": 400, "error": error}
    if "policy" in given:
        message = "Your request was rejected as a result of our safety system: content_policy_violation"
        error = {"message": message, "type": "invalid_request_error", "code": "content_policy_violation"}
        return {"fault": "status", "status": 400, "error": error}
    for name in ("cut", "end"):
        if name in given:
            return {"fault": name, "pieces": int(given[name] or 1)}
    return {"fault": next((name for name in _BARE_FAULTS if name in given), None)}
