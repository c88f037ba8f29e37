"""Devices: cpu, cuda and whatever a plug-in adds, behind one small contract."""

from ctnet.devices.base import Device, Probe
from ctnet.devices.registry import OpenDevice, device_names, open_device

__all__ = ["Device", "OpenDevice", "Probe", "device_names", "open_device"]
