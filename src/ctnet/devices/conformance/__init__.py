"""Does a device keep the contract of `ctnet.devices.base`? Checks that any plug-in can be put through.

`python -m ctnet.devices.conformance --device NAME` runs them; `docs/add-a-device.md` says how to read the table.
"""
