"""Encoder and predictor: one class of config for each kind, and the short forms of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias, cast

from pydantic import (
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from eccos_core.config.context import ParseContext
from eccos_core.config.problems import resolve_path, show_value
from eccos_core.config.section_model import (
    ConfigPath,
    Count,
    Flag,
    Found,
    Positive,
    SectionModel,
    Text,
    problem,
    problems_at,
    read_mapping,
)
from eccos_core.config.yaml import describe_yaml
from eccos_core.errors import did_you_mean

ENCODER_KINDS = ("minilm", "static", "sentence_transformer", "concatenated")
PREDICTOR_KINDS = ("prior", "retrieval", "trained", "hybrid")
_KIND_REQUIRED = ConfigDict(json_schema_extra={"required": ["kind"]})
_DEVICE = r"^(auto|cpu|mps|cuda(:\d+)?)$"

Device: TypeAlias = Annotated[
    str, Field(pattern=_DEVICE, json_schema_extra={"patternErrorMessage": "auto, cpu, cuda, cuda:N or mps"})
]
Artifact: TypeAlias = Annotated[
    ConfigPath | None,
    Field(
        description="The folder of a fitted predictor: `eccos fit` writes it and the router loads it. Without it the "
        "predictor is fitted when the router starts."
    ),
]


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

    def check_values(self) -> Iterator[Found]:
        """Compare the values."""
        if self.kind == "minilm" and self.model != "minilm" and "kind" in self.model_fields_set:
            rule = "must be left out with kind: minilm (or use kind: sentence_transformer)"
            yield ("model",), f"is {show_value(self.model)}, {rule}"


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
    mapping = _expand_word(value, info.context) if isinstance(value, str) and value.strip() else read_mapping(value)
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


EncoderField: TypeAlias = Annotated[
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

    def check_values(self) -> Iterator[Found]:
        """Compare the values."""
        if self.online and self.artifact is not None:
            rule = "has no place beside online: true: an online retrieval reads the history itself; leave one out"
            yield ("artifact",), rule


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
    mapping = read_mapping(value)
    if mapping is None:
        rule = f"must be {', '.join(kinds)}, or a mapping with one of these as kind"
        raise problem(f"is {describe_yaml(value)}, {rule}")
    return mapping


PredictorField: TypeAlias = Annotated[
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
