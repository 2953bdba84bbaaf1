"""What one pass of a language model takes on a GPU: operations and bytes, over what the GPU reaches of each."""

from eccos_core.roofline.architecture import ARCHITECTURES, ModelArchitecture, architecture_named, read_architecture
from eccos_core.roofline.cost_model import LinearCost, ModelPass, PassCost, RooflineCost
from eccos_core.roofline.gpus import GPUS, Gpu, RooflineEfficiency, gpu_named

__all__ = [
    "ARCHITECTURES",
    "GPUS",
    "Gpu",
    "LinearCost",
    "ModelArchitecture",
    "ModelPass",
    "PassCost",
    "RooflineCost",
    "RooflineEfficiency",
    "architecture_named",
    "gpu_named",
    "read_architecture",
]
