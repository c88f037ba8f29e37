"""A device plug-in outside of ctnet: the CPU under the name `mydevice`."""

import torch

from ctnet.devices.base import Probe
from ctnet.devices.cpu import CpuDevice


class MyDevice(CpuDevice):
    """Everything but the name is the CPU's; other devices start from `ctnet.devices.torch_device.Accelerator`."""

    name = "mydevice"  # what is typed after --device
    # Members that every device has; here they are the CPU's:
    #   torch_type     what torch calls it, as in torch.device("cpu")
    #   dispatch_key   what torch's dispatcher knows its kernels by; PrivateUse1 for what a vendor's package adds
    #   ddp_backend    how torch.distributed joins its processes

    def probe(self) -> Probe:
        """Say how many there are. A real plug-in imports its vendor's package here, inside a try."""
        return Probe(1, "the CPU under another name", ("example",), {"ctnet-mydevice": "0.1.0"})

    def open(self, index: int) -> torch.device:
        """Claim the device and set what its numbers need."""
        return torch.device("cpu")

    def register_kernels(self) -> dict[str, str]:
        """Register kernels and describe them; a device calls `ctnet.devices.torch_device.register` with its own."""
        return super().register_kernels()


def device() -> MyDevice:
    """Return the plug-in: what the entry point names."""
    return MyDevice()
