"""Static token vectors: MiniLM's ship with eccos, any other model's are distilled once and kept on disk.

Every token of the vocabulary goes through the model alone; what comes out is its vector (Model2Vec, Minish Lab 2024:
the library `model2vec` does this part). The vectors are then centred and turned onto their principal axes, all of
them: a smaller dimension is a prefix. The axes are computed in float64 with a fixed sign, so that two machines that
distil the same weights get the same vectors (to about 1e-5).
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from eccos_core.domain import Float32Array, FloatArray
from eccos_core.encoders.model_folder import BUNDLED, display_name, fingerprint, model_folder
from eccos_core.encoders.static_table import AXES, read_table
from eccos_core.errors import InputError
from eccos_core.io.files import cache_folder
from eccos_core.io.optional import needs_extra

if TYPE_CHECKING:
    from tokenizers import Tokenizer  # type: ignore[import-untyped, unused-ignore]

FORMAT = 1
_logger = logging.getLogger("eccos.encoders")


@dataclass(frozen=True, slots=True, eq=False)
class TokenVectors:
    """The vectors (V, D) of a vocabulary: `codes` (V, D) times `scales` (D,), one row a token.

    Columns are principal axes, widest first. Rows are in the vocabulary's order, which is about the order of frequency.
    `codes` are int8 in the table that ships, float32 elsewhere. `source`: name and fingerprint of their model.
    """

    source: str
    codes: Float32Array | npt.NDArray[np.int8]
    scales: Float32Array
    tokenizer: Tokenizer
    unknown: int | None


def token_vectors(model: str, axes: int, folder: Path | None = None) -> TokenVectors:
    """Return the token vectors of `model` ("minilm", a folder, a Hugging Face name), `axes` of them or more.

    MiniLM's first 256 axes ship with eccos and load in 0.1 s without torch. Everything else is distilled once, which
    needs `eccos[local]`. Raises `InputError` for a model that is not there or cannot be distilled.
    """
    if model == BUNDLED and axes <= AXES:
        return _shipped()
    return distilled_vectors(model, folder)


def _shipped() -> TokenVectors:
    table = read_table()
    tokenizer, unknown = _tokenizer_from(table.tokenizer)
    return TokenVectors(table.source, table.codes, table.scales, tokenizer, unknown)


def distilled_vectors(model: str, folder: Path | None = None) -> TokenVectors:
    """Return the token vectors of `model` from `folder` (the user's cache unless given), or distil them into it.

    Distilling MiniLM takes 20 to 40 s on one core and needs no network. Loading takes 0.15 s, most of it for the
    fingerprint of the weights. Raises `InputError` for a model that is not there or cannot be distilled.
    """
    folder = folder or cache_folder() / "static"
    source_folder = model_folder(model)
    source = f"{display_name(model)}@{fingerprint(source_folder)}"
    kept = folder / f"{source.replace('/', '--')}-v{FORMAT}"
    if not kept.is_dir():
        _logger.info("distilling static token vectors of %s into %s, once", source, kept)
        _keep(kept, *_distilled(model, source_folder), source)
    return _loaded(kept, source)


def _distilled(model: str, source_folder: Path) -> tuple[FloatArray, str]:
    """(V, D) vectors on principal axes, and the tokenizer as JSON."""
    from safetensors import SafetensorError

    with needs_extra("local", f"distilling the static encoder {model!r}"):
        from model2vec.distill import distill
        from transformers.utils import logging as transformers_logging
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # a report of unused weights is no news to anybody who routes
    try:
        distilled = distill(str(source_folder), pca_dims=None, sif_coefficient=None, quantize_to="float32")
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"encoder {model!r}: {source_folder} cannot be distilled ({error})") from error
    finally:
        transformers_logging.set_verbosity(before)
    return principal_axes(np.asarray(distilled.embedding, dtype=np.float64)), distilled.tokenizer.to_str()


def principal_axes(vectors: FloatArray) -> FloatArray:
    """(V, D) centred and turned onto principal axes, widest first; each axis points to its largest loading."""
    centred = vectors - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1]
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
    turned: FloatArray = centred @ (axes * np.sign(largest))
    return turned


def _keep(folder: Path, vectors: FloatArray, tokenizer: str, source: str) -> None:
    """Write the folder whole or not at all; where another process was faster, its folder stays."""
    from safetensors.numpy import save_file

    with needs_extra("local", "distilling a static encoder"):
        import model2vec

    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    temporary.mkdir(parents=True)
    try:
        save_file({"vectors": vectors.astype(np.float32)}, temporary / "vectors.safetensors")
        (temporary / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
        about = {"format": FORMAT, "source": source, "model2vec": model2vec.__version__}
        (temporary / "about.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        try:
            os.rename(temporary, folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _loaded(folder: Path, source: str) -> TokenVectors:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        vectors = load_file(folder / "vectors.safetensors")["vectors"]
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
        tokenizer, unknown = _tokenizer_from(text)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(
            f"static vectors in {folder} are damaged ({error}); delete that folder, it is made again"
        ) from error
    if vectors.ndim != 2 or len(vectors) != tokenizer.get_vocab_size():
        raise InputError(
            f"static vectors in {folder} do not match their tokenizer; delete that folder, it is made again"
        )
    return TokenVectors(source, vectors, np.ones(vectors.shape[1], dtype=np.float32), tokenizer, unknown)


def _tokenizer_from(text: str) -> tuple[Tokenizer, int | None]:
    """(the tokenizer that `tokenizer.json` describes, the id of its unknown token)."""
    from tokenizers import Tokenizer  # type: ignore[import-untyped, unused-ignore]

    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, _unknown_token(json.loads(text), tokenizer)


def _unknown_token(description: dict[str, Any], tokenizer: Tokenizer) -> int | None:
    """The id of the token that stands for what the vocabulary does not know: it says nothing, and is left out."""
    model = description["model"]
    if isinstance(model.get("unk_id"), int):
        return int(model["unk_id"])
    token = model.get("unk_token")
    found: int | None = tokenizer.token_to_id(token) if token else None
    return found
