"""Checks of the contract of `ctnet.devices.base` for any plug-in.

`python -m ctnet.devices.conformance --device NAME` runs them; `docs/add-a-device.md` says how to read the table.
"""
