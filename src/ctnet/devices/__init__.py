"""Devices: cpu, cuda, npu, sdaa and those of plug-ins, behind one small contract."""

from ctnet.devices.base import REDUCED, Device, Prepared, Probe
from ctnet.devices.precision import choose_dtype
from ctnet.devices.registry import OpenDevice, device_for_processes, device_names, open_device, open_for_rank
from ctnet.precision import PrecisionName

__all__ = [
    "REDUCED",
    "Device",
    "OpenDevice",
    "PrecisionName",
    "Prepared",
    "Probe",
    "choose_dtype",
    "device_for_processes",
    "device_names",
    "open_device",
    "open_for_rank",
]
