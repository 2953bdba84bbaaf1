"""Builds the encoder that a configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eccos_core.config import ConcatenatedConfig, Config, EncoderConfig, SentenceTransformerConfig, StaticConfig

if TYPE_CHECKING:
    from eccos_core.assembly.assembled import Assembled
    from eccos_core.domain import ConversationView
    from eccos_core.protocols import Encoder


def reuse_or_build_encoder(config: Config, current: Assembled | None) -> Encoder:
    """Return the encoder in use where the configuration names the same, else build one that is ready to encode."""
    if current is not None and _settings(current.config) == _settings(config):
        return current.encoder
    encoder = build_encoder(config.encoder, config.conversation)
    if current is not None:
        encoder.encode(["ready?"])  # a model is loaded at its first text, and no request shall wait for that
    return encoder


def build_encoder(config: EncoderConfig, conversation: ConversationView = "last_user") -> Encoder:
    """Build the encoder that `eccos.encoder` names, with the text's surface beside it.

    The surface is 18 numbers (lengths, digits, options, code) that an embedding leaves out. For the view `agent_step`
    the numbers of an agent's step stand beside both.
    """
    from eccos_core.encoders import ConcatenatedEncoder, StepEncoder, SurfaceEncoder

    encoder = ConcatenatedEncoder([*_encoders_of(config), SurfaceEncoder()])
    return StepEncoder(encoder) if conversation == "agent_step" else encoder


def _encoders_of(config: EncoderConfig) -> list[Encoder]:
    from eccos_core import encoders

    match config:
        case SentenceTransformerConfig(
            model=model, device=device, threads=threads, intermediate_layer=intermediate_layer
        ):
            return [
                encoders.SentenceTransformerEncoder(
                    model, device=device, threads=threads, intermediate_layer=intermediate_layer
                )
            ]
        case StaticConfig(model=model, dimensions=dimensions):
            return [encoders.StaticEncoder(model, dimensions=dimensions)]
        case ConcatenatedConfig(encoders=parts):
            return [encoder for part in parts for encoder in _encoders_of(part)]


def _settings(config: Config) -> tuple[object, ...]:
    """Return all that an encoder is made of."""
    return config.encoder, config.conversation == "agent_step"
