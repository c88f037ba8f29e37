"""Devices: cpu, cuda, npu, sdaa and whatever a plug-in adds, behind one small contract."""

from ctnet.devices.base import REDUCED, Device, PrecisionName, Prepared, Probe
from ctnet.devices.registry import OpenDevice, device_for_processes, device_names, open_device, open_for_rank

__all__ = [
    "REDUCED",
    "Device",
    "OpenDevice",
    "PrecisionName",
    "Prepared",
    "Probe",
    "device_for_processes",
    "device_names",
    "open_device",
    "open_for_rank",
]
