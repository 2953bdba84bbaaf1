"""GPUs: the peak numbers of their data sheets, and the share of them that kernels were measured to reach.

The shares are fitted by `python -m tools.roofline.measured_layers` to measured layers: of Vidur (Agrawal et al., MLSys
2024, github.com/microsoft/vidur, MIT) and of NVIDIA's aiconfigurator 0.5.0 (Apache-2.0).
"""

from __future__ import annotations

from dataclasses import dataclass

from eccos_core.errors import InputError, did_you_mean


@dataclass(frozen=True, slots=True)
class RooflineEfficiency:
    """The shares, in (0, 1], of the data sheet that kernels reach, and the seconds that each takes beside.

    `compute` and `memory` are those of matrix products, `elementwise` that of norms, activations and sums.
    `attention_compute` is for reading a prompt, `attention_memory` for decoding.
    """

    compute: float
    memory: float
    kernel_s: float
    elementwise: float
    elementwise_kernel_s: float
    attention_compute: float
    attention_memory: float
    attention_kernel_s: float


@dataclass(frozen=True, slots=True)
class Gpu:
    """One kind of GPU. `flops` a second are dense, in 16 bits. `bandwidth` and `link_bandwidth` are bytes a second.

    `generation` is that of its cores. `calibrated` is False where no table of this GPU was fitted: it then has the
    shares of the A100.
    """

    name: str
    flops: float
    bandwidth: float
    memory_bytes: float
    link_bandwidth: float
    generation: str
    efficiency: RooflineEfficiency
    calibrated: bool = False


# Fitted by tools/roofline/measured_layers.py: the A40 and the A100 to Vidur's layers (kernels of 2024), the H100 and
# the H200 to those of vLLM 0.12 (2025) in NVIDIA's aiconfigurator. Attention is aiconfigurator's, and the A40 has the
# A100's. The norms and activations of the H100 and the H200 are Vidur's.
_A100 = RooflineEfficiency(0.738, 0.780, 4.20e-6, 0.486, 5.17e-6, 0.431, 0.886, 3.61e-5)
_A40 = RooflineEfficiency(0.751, 0.778, 4.02e-6, 0.769, 4.18e-6, 0.431, 0.886, 3.61e-5)
_H100 = RooflineEfficiency(0.886, 0.845, 4.14e-6, 0.536, 4.46e-6, 0.529, 0.908, 1.31e-5)
_H200 = RooflineEfficiency(0.886, 0.815, 4.45e-6, 0.536, 4.46e-6, 0.519, 0.888, 1.32e-5)

GPUS: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        Gpu("a100", 312e12, 2.039e12, 80e9, 300e9, "ampere", _A100, calibrated=True),
        Gpu("a100-40g", 312e12, 1.555e12, 40e9, 300e9, "ampere", _A100),
        Gpu("a40", 149.7e12, 0.696e12, 48e9, 56e9, "ampere", _A40, calibrated=True),
        Gpu("h100", 989.4e12, 3.35e12, 80e9, 450e9, "hopper", _H100, calibrated=True),
        Gpu("h200", 989.4e12, 4.8e12, 141e9, 450e9, "hopper", _H200, calibrated=True),
        Gpu("l4", 121e12, 0.3e12, 24e9, 32e9, "ada", _A100),
        Gpu("l40s", 362e12, 0.864e12, 48e9, 32e9, "ada", _A100),
        Gpu("a10", 125e12, 0.6e12, 24e9, 32e9, "ampere", _A100),
        Gpu("t4", 65e12, 0.3e12, 16e9, 16e9, "turing", _A100),
        Gpu("v100", 125e12, 0.9e12, 32e9, 150e9, "volta", _A100),
    )
}


def gpu_named(name: str) -> Gpu:
    """Return the GPU `name`, such as "a100". Raises `InputError` that names the known ones."""
    try:
        return GPUS[name.lower()]
    except KeyError:
        known = ", ".join(GPUS)
        raise InputError(f"gpu is {name!r}, must be one of {known}{did_you_mean(name.lower(), GPUS)}") from None
