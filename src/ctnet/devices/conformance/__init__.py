"""Checks of the contract of `ctnet.devices.base` for any plug-in.

`python -m ctnet.devices.conformance --device NAME` runs them; `docs/add-a-device.md` explains the table.
"""
