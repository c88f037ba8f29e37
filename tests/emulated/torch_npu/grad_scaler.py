"""The vendor's loss scaler as seen from outside: one entry more in its state, and it prints."""

import torch


class GradScaler(torch.amp.GradScaler):
    def __init__(
        self,
        init_scale=2.0**16,
        growth_factor=2.0,
        backoff_factor=0.5,
        growth_interval=2000,
        dynamic=True,
        enabled=True,
    ):
        super().__init__("npu", init_scale, growth_factor, backoff_factor, growth_interval, enabled)
        self._dynamic = dynamic
        print("GradScaler options are:", init_scale, growth_factor, backoff_factor, growth_interval, dynamic)

    def state_dict(self):
        return {**super().state_dict(), "dynamic": self._dynamic}

    def load_state_dict(self, state_dict):
        self._dynamic = state_dict["dynamic"]
        super().load_state_dict(state_dict)

    def step(self, optimizer, *args, **kwargs):
        print("stepping")
        return super().step(optimizer, *args, **kwargs)

    def update(self, new_scale=None):
        print("updating")
        super().update(new_scale)
