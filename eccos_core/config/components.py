"""Encoder, predictor and history: one class of config for each kind, and the short forms of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, cast
from urllib.parse import urlsplit

from pydantic import (
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from eccos_core.config.context import ParseContext
from eccos_core.config.problems import resolve_path, show_value
from eccos_core.config.redacted import RedactedMapping
from eccos_core.config.section_model import (
    ConfigPath,
    Count,
    Flag,
    Positive,
    SectionModel,
    Text,
    problem,
    problems_at,
    unknown_key,
)
from eccos_core.config.yaml import describe_yaml
from eccos_core.errors import did_you_mean

ENCODER_KINDS = ("minilm", "static", "sentence_transformer", "concatenated")
PREDICTOR_KINDS = ("prior", "retrieval", "trained", "hybrid")
HISTORY_PLACES = ("path", "url", "outcomes")
DEFAULT_HISTORY = ".eccos/history"
_KIND_REQUIRED = ConfigDict(json_schema_extra={"required": ["kind"]})
_DEVICE = r"^(auto|cpu|mps|cuda(:\d+)?)$"
_COLLECTION = r"^[A-Za-z0-9][A-Za-z0-9._-]{1,510}[A-Za-z0-9]$"

Device: TypeAlias = Annotated[
    str, Field(pattern=_DEVICE, json_schema_extra={"patternErrorMessage": "auto, cpu, cuda, cuda:N or mps"})
]
Collection: TypeAlias = Annotated[
    str,
    Field(
        pattern=_COLLECTION,
        json_schema_extra={"patternErrorMessage": "3 to 512 letters, digits, dots, dashes or underscores"},
    ),
]
Artifact: TypeAlias = Annotated[
    ConfigPath | None,
    Field(
        description="The folder of a fitted predictor: `eccos fit` writes it and the router loads it. Without it the "
        "predictor is fitted when the router starts."
    ),
]


def _mapping(value: Any) -> dict[str, Any] | None:
    """Return a copy of the mapping without empty keys, or None when the value is no mapping."""
    return {str(key): item for key, item in value.items() if item is not None} if isinstance(value, Mapping) else None


# ----------------------------------------------------------------------------- encoders


def _resolve_model(model: str, info: ValidationInfo) -> str:
    """Make the folder of a model absolute. The name of a model stays as it is."""
    if info.context is None or model == "minilm":
        return model
    folder = resolve_path(model, info.context.folder)
    if not model.startswith((".", "~", "/")) and not folder.is_dir():
        return model
    if not folder.is_dir():
        rule = f"must be a folder that exists ({folder} does not), or the name of a model"
        raise problem(f"is {show_value(model)}, {rule}")
    return str(folder)


class SentenceTransformerConfig(SectionModel):
    """A sentence-transformers model. It runs in this process and needs torch."""

    model_config = _KIND_REQUIRED

    kind: Literal["minilm", "sentence_transformer"] = Field(
        default="minilm", description="`minilm` is the bundled model. `sentence_transformer` takes any other `model`."
    )
    model: Text = Field(default="minilm", description="The name or the folder of a sentence-transformers model.")
    device: Device = Field(default="auto", description="Where the model runs. `auto` takes a GPU where there is one.")
    threads: Count = Field(default=1, description="Torch threads for one call.")
    intermediate_layer: Flag = Field(
        default=True,
        description="Also read the middle layer of the model. It says how a question is asked and how hard it is.",
    )

    _resolve = field_validator("model")(_resolve_model)

    @model_validator(mode="after")
    def _check_bundled(self) -> Self:
        if self.kind == "minilm" and self.model != "minilm" and "kind" in self.model_fields_set:
            rule = "must be left out with kind: minilm (or use kind: sentence_transformer)"
            raise problems_at([(("model",), f"is {show_value(self.model)}, {rule}")])
        return self


class StaticConfig(SectionModel):
    """Static token embeddings. They are distilled once from a sentence-transformers model and need no torch later."""

    model_config = _KIND_REQUIRED

    kind: Literal["static"] = Field(default="static", description="Static token embeddings.")
    model: Text = Field(default="minilm", description="The sentence-transformers model they are distilled from.")
    dimensions: Count = Field(default=384, description="Length of a vector.")

    _resolve = field_validator("model")(_resolve_model)


def _parse_encoders(value: Any, info: ValidationInfo) -> tuple[SentenceTransformerConfig | StaticConfig, ...]:
    """Parse a list of encoders, and report the problems of each."""
    if isinstance(value, tuple):
        return value
    if not isinstance(value, list) or not value:
        raise problem(f"is {'empty' if value == [] else describe_yaml(value)}, must be a list of encoders")
    parts: list[SentenceTransformerConfig | StaticConfig] = []
    found: list[tuple[tuple[int | str, ...], str]] = []
    for index, item in enumerate(value):
        if isinstance(item, Mapping) and item.get("kind") == "concatenated":
            found.append(((index, "kind"), "is 'concatenated', must not stand in another; write one list"))
            continue
        if isinstance(item, list):
            found.append(((index,), "is a list, must not stand in another; write one list"))
            continue
        try:
            parts.append(cast(SentenceTransformerConfig | StaticConfig, parse_encoder(item, info)))
        except ValidationError as error:
            found += [((index, *each["loc"]), each["msg"]) for each in error.errors(include_url=False)]
    if found:
        raise problems_at(found)
    return tuple(parts)


class ConcatenatedConfig(SectionModel):
    """Several encoders side by side. Their vectors are joined."""

    model_config = ConfigDict(json_schema_extra={"required": ["kind", "encoders"]})

    kind: Literal["concatenated"] = Field(default="concatenated", description="Several encoders side by side.")
    encoders: Annotated[
        tuple[SentenceTransformerConfig | StaticConfig, ...],
        PlainValidator(
            _parse_encoders,
            json_schema_input_type=list[Literal["minilm", "static"] | str | SentenceTransformerConfig | StaticConfig],
        ),
    ] = Field(description="The encoders, each a short form or a mapping.")


EncoderConfig: TypeAlias = SentenceTransformerConfig | StaticConfig | ConcatenatedConfig
_ENCODER_CLASSES: Mapping[str, type[SentenceTransformerConfig | StaticConfig | ConcatenatedConfig]] = {
    "minilm": SentenceTransformerConfig,
    "sentence_transformer": SentenceTransformerConfig,
    "static": StaticConfig,
    "concatenated": ConcatenatedConfig,
}


def parse_encoder(value: Any, info: ValidationInfo) -> EncoderConfig:
    """Parse a short form (`minilm`, `static`, a model), a mapping with a `kind`, or a list of these.

    Every problem is a `ValidationError` with its location.
    """
    if isinstance(value, SectionModel):
        return cast(EncoderConfig, value)
    if isinstance(value, list):
        return ConcatenatedConfig(encoders=_parse_encoders(value, info))
    mapping = _expand_word(value, info.context) if isinstance(value, str) and value.strip() else _mapping(value)
    if mapping is None:
        rule = "must be minilm, static, the name or folder of a sentence-transformers model, or a mapping with a kind"
        raise problems_at([((), f"is {describe_yaml(value)}, {rule}")])
    _check_kind(mapping, ENCODER_KINDS, required=True)
    return _ENCODER_CLASSES[mapping["kind"]].model_validate(mapping, context=info.context)


def _expand_word(word: str, context: ParseContext | None) -> dict[str, Any]:
    if word in {"minilm", "static"}:
        return {"kind": word}
    meant = did_you_mean(word, ENCODER_KINDS)
    if meant and "/" not in word and not (context and resolve_path(word, context.folder).is_dir()):
        rule = f"must be minilm, static or a sentence-transformers model{meant}"
        raise problems_at([((), f"is {show_value(word)}, {rule}")])
    return {"kind": "sentence_transformer", "model": word}


def _check_kind(mapping: Mapping[str, Any], kinds: Sequence[str], *, required: bool) -> None:
    """Raise when the `kind` of a mapping is missing or unknown."""
    kind = mapping.get("kind")
    if kind is None and required:
        raise problems_at([(("kind",), f"is missing, must be one of {', '.join(kinds)}")])
    if kind is not None and kind not in kinds:
        meant = did_you_mean(kind, kinds) if isinstance(kind, str) else ""
        raise problems_at([(("kind",), f"is {show_value(kind)}, must be one of {', '.join(kinds)}{meant}")])


Encoder: TypeAlias = Annotated[
    EncoderConfig,
    PlainValidator(
        parse_encoder,
        json_schema_input_type=Literal["minilm", "static"]
        | str
        | SentenceTransformerConfig
        | StaticConfig
        | ConcatenatedConfig
        | list[Literal["minilm", "static"] | str | SentenceTransformerConfig | StaticConfig],
    ),
]

# ----------------------------------------------------------------------------- predictors


class PriorConfig(SectionModel):
    """Every request gets each model's mean quality. Nothing about the request is read."""

    model_config = _KIND_REQUIRED

    kind: Literal["prior"] = Field(default="prior", description="The mean of each model.")
    artifact: Artifact = None


class RetrievalConfig(SectionModel):
    """The most similar past questions, weighted by a kernel (ECCOS-R)."""

    model_config = _KIND_REQUIRED

    kind: Literal["retrieval"] = Field(default="retrieval", description="The most similar past questions.")
    artifact: Artifact = None
    neighbours: Count | None = Field(
        default=None, description="How many past questions count. Left out, it is chosen on held-out folds."
    )
    bandwidth: Positive | None = Field(
        default=None, description="Width of the kernel. Left out, it is chosen on held-out folds."
    )
    online: Flag = Field(
        default=False, description="Ask the history at every decision, so that a new outcome counts at once."
    )

    @model_validator(mode="after")
    def _check_online(self) -> Self:
        if self.online and self.artifact is not None:
            rule = "has no place beside online: true: an online retrieval reads the history itself; leave one out"
            raise problems_at([(("artifact",), rule)])
        return self


class TrainedConfig(SectionModel):
    """A trained predictor (ECCOS-T)."""

    model_config = _KIND_REQUIRED

    kind: Literal["trained"] = Field(default="trained", description="A trained neural network.")
    artifact: Artifact = None
    method: Literal["heads", "fine_tuned"] = Field(
        default="heads",
        description="`heads` trains a small network on the vectors of the encoder. `fine_tuned` trains the encoder "
        "itself: it needs an `artifact`, and `eccos fit` writes it.",
    )


class HybridConfig(SectionModel):
    """Retrieval, clusters, regression and a trained head, stacked and calibrated. This is the default."""

    kind: Literal["hybrid"] = Field(default="hybrid", description="All of them, stacked and calibrated.")
    artifact: Artifact = None


PredictorConfig: TypeAlias = PriorConfig | RetrievalConfig | TrainedConfig | HybridConfig
_PREDICTOR_CLASSES: Mapping[str, type[PriorConfig | RetrievalConfig | TrainedConfig | HybridConfig]] = {
    "prior": PriorConfig,
    "retrieval": RetrievalConfig,
    "trained": TrainedConfig,
    "hybrid": HybridConfig,
}


def parse_predictor(value: Any, info: ValidationInfo) -> PredictorConfig:
    """Parse a short word (`hybrid`), or a mapping with a `kind` (hybrid when it names none)."""
    if isinstance(value, SectionModel):
        return cast(PredictorConfig, value)
    mapping = expand_kind(value, PREDICTOR_KINDS)
    _check_kind(mapping, PREDICTOR_KINDS, required=False)
    return _PREDICTOR_CLASSES[mapping.get("kind", "hybrid")].model_validate(mapping, context=info.context)


def expand_kind(value: Any, kinds: Sequence[str]) -> dict[str, Any]:
    """Return the mapping that a short word stands for, or a copy of the mapping given."""
    if isinstance(value, str):
        if value not in kinds:
            rule = f"must be one of {', '.join(kinds)}{did_you_mean(value, kinds)}"
            raise problem(f"is {show_value(value)}, {rule}")
        return {"kind": value}
    mapping = _mapping(value)
    if mapping is None:
        rule = f"must be {', '.join(kinds)}, or a mapping with one of these as kind"
        raise problem(f"is {describe_yaml(value)}, {rule}")
    return mapping


Predictor: TypeAlias = Annotated[
    PredictorConfig,
    PlainValidator(
        parse_predictor,
        json_schema_input_type=Literal["prior", "retrieval", "trained", "hybrid"]
        | HybridConfig
        | RetrievalConfig
        | TrainedConfig
        | PriorConfig,
    ),
]

# ----------------------------------------------------------------------------- history


class ChromaPersistentConfig(SectionModel):
    """A Chroma store in a folder. This is the default."""

    path: ConfigPath = Field(description="The folder of the store.")
    collection: Collection = Field(default="eccos", description="The name of the collection in the store.")


def _parse_headers(value: Any, info: ValidationInfo) -> RedactedMapping:
    """Fill in `os.environ/NAME`. The result never shows its values."""
    if isinstance(value, RedactedMapping):
        return value
    mapping = _mapping(value)
    if mapping is None:
        raise problem(f"is {describe_yaml(value)}, must be a mapping")
    context: ParseContext | None = info.context
    hidden: Mapping[str, str] = {}
    if context is not None:
        # an unset variable goes straight to the list of problems, as it does in model_list
        mapping, hidden = context.environment.fill(mapping, "eccos.history.headers", context.problems)
    found = [
        ((name,), f"is {describe_yaml(item)}, must be text")
        for name, item in mapping.items()
        if item is not None and not isinstance(item, str)
    ]
    if found:
        raise problems_at(found)
    return RedactedMapping(mapping, frozenset(hidden))


class ChromaServerConfig(SectionModel):
    """A Chroma server."""

    url: Text = Field(description="The address, `http://host:port` or `https://host:port`. A password is refused here.")
    collection: Collection = Field(default="eccos", description="The name of the collection on the server.")
    headers: Annotated[Mapping[str, str], PlainValidator(_parse_headers, json_schema_input_type=dict[str, str])] = (
        Field(
            default_factory=lambda: RedactedMapping({}),
            description="HTTP headers with the credentials of the server. Write `os.environ/NAME`.",
        )
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            plain = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            plain, parts = False, urlsplit("")
        if not plain or parts.username or parts.password or parts.query:
            rule = "http://host:port or https://host:port; credentials belong under headers, as os.environ/NAME"
            raise problem(f"is not the address of a server, must be {rule}")
        return url


class InMemoryConfig(SectionModel):
    """A history that is gone when the process ends."""

    model_config = ConfigDict(json_schema_extra={"required": ["outcomes"]})

    outcomes: ConfigPath | None = Field(default=None, description="The outcomes file that the history begins with.")


HistoryConfig: TypeAlias = ChromaPersistentConfig | ChromaServerConfig | InMemoryConfig
_HISTORY_CLASSES: Mapping[str, type[ChromaPersistentConfig | ChromaServerConfig | InMemoryConfig]] = {
    "path": ChromaPersistentConfig,
    "url": ChromaServerConfig,
    "outcomes": InMemoryConfig,
}


def parse_history(value: Any, info: ValidationInfo) -> HistoryConfig:
    """Parse `in_memory`, or a mapping with a `path`, a `url` or `outcomes`."""
    if isinstance(value, SectionModel):
        return cast(HistoryConfig, type(value).model_validate(value, context=info.context))
    if value == "in_memory":
        return InMemoryConfig()
    mapping = _mapping(value)
    if mapping is None:
        raise problem(f"is {describe_yaml(value)}, must be in_memory, or a mapping with a path, a url or outcomes")
    given = [key for key in HISTORY_PLACES if key in mapping]
    if len(given) == 1:
        if given != ["url"] and "headers" in mapping:
            raise problems_at([(("headers",), "are sent to a server only; leave them out, or give a url")])
        return _HISTORY_CLASSES[given[0]].model_validate(mapping, context=info.context)
    start = f"has {' and '.join(given)}" if given else "names no place"
    known = [*HISTORY_PLACES, "collection", "headers"]
    found = [((key,), unknown_key(key, known)) for key in mapping if key not in known]
    raise problems_at([*found, ((), f"{start}; give exactly one of {', '.join(HISTORY_PLACES)}")])


History: TypeAlias = Annotated[
    HistoryConfig,
    PlainValidator(
        parse_history,
        json_schema_input_type=Literal["in_memory"] | ChromaPersistentConfig | ChromaServerConfig | InMemoryConfig,
    ),
]


def default_history() -> HistoryConfig:
    """Return the history of a file that names none."""
    return ChromaPersistentConfig(path=Path(DEFAULT_HISTORY))
