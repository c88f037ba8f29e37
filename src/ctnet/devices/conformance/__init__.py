"""Does a device keep the contract of `ctnet.devices.base`? Checks that any plug-in can be put through."""
