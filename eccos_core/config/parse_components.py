"""Encoder, predictor and history: a short word or a mapping with a `kind`, one class of config each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from eccos_core.config.parse_model import ParseContext
from eccos_core.config.redacted import RedactedMapping
from eccos_core.config.schema import (
    ChromaPersistentConfig,
    ChromaServerConfig,
    ConcatenatedConfig,
    EncoderConfig,
    HistoryConfig,
    HybridConfig,
    InMemoryConfig,
    PredictorConfig,
    PriorConfig,
    RetrievalConfig,
    SentenceTransformerConfig,
    StaticConfig,
    TrainedConfig,
)
from eccos_core.config.section import Section, resolved
from eccos_core.config.yaml import describe_yaml
from eccos_core.errors import did_you_mean

ENCODERS = ("minilm", "static", "sentence_transformer", "concatenated")
PREDICTORS = ("prior", "retrieval", "trained", "hybrid")
DEFAULT_HISTORY = ".eccos/history"
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_COLLECTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,510}[A-Za-z0-9]")


def read_encoder(ours: Section, folder: Path) -> EncoderConfig:
    """`minilm`, `static`, the name or folder of a sentence-transformers model, a mapping, or a list of these."""
    value = ours.raw("encoder")
    if value is None:
        return SentenceTransformerConfig()
    if isinstance(value, list):
        return _side_by_side(
            Section({"encoders": value}, ours.at("encoder"), ours.problems), ours.at("encoder"), folder
        )
    section = _named_encoder(value, ours.at("encoder"), ours, folder)
    if section is None:
        return SentenceTransformerConfig()
    if section.values.get("kind") == "concatenated":
        section.raw("kind")
        return _side_by_side(section, section.at("encoders"), folder)
    return _one_encoder(section, folder)


def _named_encoder(value: object, place: str, ours: Section, folder: Path) -> Section | None:
    """A short word written out as the mapping it stands for; None when it is neither (noted)."""
    if isinstance(value, dict):
        return Section({str(key): item for key, item in value.items()}, place, ours.problems)
    if not isinstance(value, str) or not value.strip():
        rule = "must be minilm, static, the name or folder of a sentence-transformers model, or a mapping with a kind"
        ours.problems.add(place, f"is {describe_yaml(value)}, {rule}")
        return None
    if value in {"minilm", "static"}:
        return Section({"kind": value}, place, ours.problems)
    meant = did_you_mean(value, ENCODERS)
    if meant and "/" not in value and not resolved(value, folder).is_dir():
        ours.problems.add(place, f"is {value!r}, must be minilm, static or a sentence-transformers model{meant}")
        return None
    return Section({"kind": "sentence_transformer", "model": value}, place, ours.problems)


def _side_by_side(section: Section, place: str, folder: Path) -> EncoderConfig:
    listed = section.raw("encoders")
    section.close()
    if not isinstance(listed, list) or not listed:
        section.problems.add(
            place, f"is {'empty' if listed == [] else describe_yaml(listed)}, must be a list of encoders"
        )
        return SentenceTransformerConfig()
    parts = []
    for index, value in enumerate(listed):
        part = _named_encoder(value, f"{place}[{index}]", section, folder)
        if part is not None and part.values.get("kind") == "concatenated":
            section.problems.add(part.at("kind"), "is 'concatenated', must not stand in another; write one list")
        elif part is not None:
            parts.append(_one_encoder(part, folder))
    return ConcatenatedConfig(tuple(parts))


def _one_encoder(section: Section, folder: Path) -> SentenceTransformerConfig | StaticConfig:
    kind = _kind(section, ENCODERS, "minilm")
    model = section.text("model", "minilm")
    if model.startswith((".", "~", "/")) or (model != "minilm" and resolved(model, folder).is_dir()):
        model = str(resolved(model, folder))
        if not Path(model).is_dir():
            section.wrong("model", f"a folder that exists ({model} does not), or the name of a model")
    config: SentenceTransformerConfig | StaticConfig
    if kind == "static":
        config = StaticConfig(model, section.integer("dimensions", StaticConfig().dimensions))
    else:
        if kind == "minilm" and model != "minilm":
            section.wrong("model", "left out with kind: minilm (or use kind: sentence_transformer)")
        device = section.text("device", "auto")
        if not _DEVICE.fullmatch(device):
            section.wrong("device", "auto, cpu, cuda, cuda:N or mps")
        config = SentenceTransformerConfig(
            model, device, section.integer("threads", 1), section.boolean("intermediate_layer", True)
        )
    section.close()
    return config


def _kind(section: Section, kinds: tuple[str, ...], default: str) -> str:
    if not section.has("kind"):
        section.problems.add(section.at("kind"), f"is missing, must be one of {', '.join(kinds)}")
        return default
    return section.choice("kind", kinds, default)


def read_predictor(ours: Section, folder: Path) -> PredictorConfig:
    """`prior`, `retrieval`, `trained`, `hybrid`, or a mapping with a kind (hybrid when it names none)."""
    section = ours.kind_or_section("predictor", PREDICTORS)
    if section is None:
        return HybridConfig()
    kind = section.choice("kind", PREDICTORS, "hybrid")
    artifact = section.path("artifact", folder, None)
    config: PredictorConfig
    match kind:
        case "prior":
            config = PriorConfig(artifact)
        case "retrieval":
            neighbours, bandwidth = section.integer("neighbours", None), section.number("bandwidth", None, above=True)
            online = section.boolean("online", False)
            if online and artifact is not None:
                rule = "has no place beside online: true: an online retrieval reads the history itself; leave one out"
                section.problems.add(section.at("artifact"), rule)
            config = RetrievalConfig(artifact, neighbours, bandwidth, online)
        case "trained":
            method = section.choice("method", ("heads", "fine_tuned"), "heads")
            config = TrainedConfig(artifact, cast(Any, method))
        case _:
            config = HybridConfig(artifact)
    section.close()
    return config


def read_history(ours: Section, around: ParseContext) -> HistoryConfig:
    """`in_memory`, or a mapping: the `path` of a folder, the `url` of a Chroma server, or an `outcomes` file."""
    default = ChromaPersistentConfig(resolved(DEFAULT_HISTORY, around.folder))
    if ours.raw("history") == "in_memory":
        return InMemoryConfig()
    section = ours.section("history", instead="in_memory, or a mapping with a path, a url or outcomes")
    if section is None:
        return default
    url = section.text("url", None)
    path = section.path("path", around.folder, None)
    outcomes = section.path("outcomes", around.folder, None)
    collection = section.text("collection", default.collection)
    if not _COLLECTION.fullmatch(collection):
        section.wrong("collection", "3 to 512 letters, digits, dots, dashes or underscores")
    headers = section.section("headers")
    section.close()
    given = [key for key in ("path", "url", "outcomes") if section.has(key)]
    if len(given) != 1:
        told = f"has {' and '.join(given)}" if given else "names no place"
        section.problems.add(section.place, f"{told}; give exactly one of path, url, outcomes")
    elif outcomes is not None:
        return InMemoryConfig(outcomes)
    elif url is not None:
        return ChromaServerConfig(_server(section, url), collection, _headers(headers, around))
    elif headers is not None:
        section.problems.add(headers.place, "are sent to a server only; a history with a path has none")
    return ChromaPersistentConfig(path or default.path, collection)


def _server(section: Section, url: str) -> str:
    """The address of a Chroma server; never one that carries a password."""
    try:
        parts = urlsplit(url)
        plain = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        plain, parts = False, urlsplit("")
    if not plain or parts.username or parts.password or parts.query:
        rule = "http://host:port or https://host:port; credentials belong under headers, as os.environ/NAME"
        section.problems.add(section.at("url"), f"is not the address of a server, must be {rule}")
    return url


def _headers(headers: Section | None, around: ParseContext) -> RedactedMapping:
    if headers is None:
        return RedactedMapping({})
    filled, hidden = around.environment.fill(headers.values, headers.place, around.problems)
    for name, value in filled.items():
        if not isinstance(value, str) and value is not None:
            headers.problems.add(headers.at(name), f"is {describe_yaml(value)}, must be text")
    return RedactedMapping(filled, frozenset(hidden))
