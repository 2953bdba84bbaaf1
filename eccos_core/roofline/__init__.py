"""What one pass of a language model takes on a GPU: operations and bytes, over what the GPU reaches of each."""

from eccos_core.roofline.architecture import (
    ARCHITECTURES,
    AttentionWindow,
    ModelArchitecture,
    architecture_named,
    read_architecture,
)
from eccos_core.roofline.cost_model import LinearCost, ModelPass, PassCost, RooflineCost, count_pairs
from eccos_core.roofline.gpus import GPUS, Gpu, RooflineEfficiency, gpu_named
from eccos_core.roofline.machine import (
    THIS,
    MachineCost,
    MachineSpeed,
    MeasuredPass,
    ModelSpeed,
    read_machine,
    write_machine,
)
from eccos_core.roofline.served_model import serve_model
from eccos_core.roofline.token_price import ServedModel, TokenPrice, price_by_context, price_tokens

__all__ = [
    "ARCHITECTURES",
    "GPUS",
    "THIS",
    "AttentionWindow",
    "Gpu",
    "LinearCost",
    "MachineCost",
    "MachineSpeed",
    "MeasuredPass",
    "ModelArchitecture",
    "ModelPass",
    "ModelSpeed",
    "PassCost",
    "RooflineCost",
    "RooflineEfficiency",
    "ServedModel",
    "TokenPrice",
    "architecture_named",
    "count_pairs",
    "gpu_named",
    "price_by_context",
    "price_tokens",
    "read_architecture",
    "read_machine",
    "serve_model",
    "write_machine",
]
