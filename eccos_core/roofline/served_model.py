"""A model as it is served on some GPUs: from a folder or a name, and from the kind of GPU."""

from __future__ import annotations

from eccos_core.errors import InputError
from eccos_core.roofline.architecture import architecture_named
from eccos_core.roofline.cost_model import RooflineCost
from eccos_core.roofline.gpus import gpu_named
from eccos_core.roofline.machine import THIS, read_machine
from eccos_core.roofline.token_price import LARGEST_BATCH, ServedModel

BATCH_OF_LOCAL_ENGINE = 64  # `max_batch` of the engine in this process
MEMORY_SHARE = 0.9  # of the memory that an engine takes; vLLM's `gpu_memory_utilization`


def serve_model(
    architecture: str,
    gpu: str,
    *,
    usd_per_gpu_hour: float,
    gpus: int = 1,
    batch: int | None = None,
    largest_batch: int | None = None,
) -> ServedModel:
    """Describe how a model is served.

    - `architecture` is a Hugging Face folder, or the name of a known model.
    - `gpu` is a kind of GPU, or "this" for the machine that `eccos price FOLDER --gpu this --calibrate` measured.
    - `gpus` share the model (tensor parallel).
    - `batch` requests decode together. None: as many as fit, at most `largest_batch` (256, in this process 64).

    Raises `InputError` for a name that nobody knows, a model that does not fit, and for "this" before it is measured.
    """
    model = architecture_named(architecture)
    if gpu == THIS:
        if gpus != 1:
            raise InputError(f"gpus is {gpus}, must be 1 where gpu is {THIS!r}")
        machine = read_machine()
        most = largest_batch or BATCH_OF_LOCAL_ENGINE
        held = machine.kv_tokens(model)
        return ServedModel(model.name, machine.cost_of(model), held, usd_per_gpu_hour, batch, most)
    kind = gpu_named(gpu)
    cost = RooflineCost(kind, model, gpus)
    held = cost.kv_tokens(MEMORY_SHARE)
    return ServedModel(
        model.name,
        cost,
        held,
        usd_per_gpu_hour * gpus,
        batch,
        largest_batch or LARGEST_BATCH,
        model.window if model.windowed_layers else 0,
        model.windowed_layers / model.layers,
    )
