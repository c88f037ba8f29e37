"""How fast is suppression, against the same loops in torch?

python benchmarks/nms.py [--device NAME] [--json FILE]
"""

from __future__ import annotations

import torch
from measure import DEVICE, arguments, finish, milliseconds

from ctnet.ops import nms, soft_nms
from ctnet.ops.nms import reference_nms, reference_soft_nms


def main() -> None:
    """Print times and ratios."""
    values = arguments(__doc__, device=DEVICE)
    device = values.device
    print(device.plugin.register_kernels()["nms"])
    figures, ratios = {}, {}
    for count in (100, 300, 1000):
        generator = torch.Generator().manual_seed(0)
        corner = torch.rand(count, 2, generator=generator) * 400
        boxes = torch.cat([corner, corner + 10 + torch.rand(count, 2, generator=generator) * 90], 1)
        scores = torch.rand(count, generator=generator)
        labels = torch.randint(0, 4, (count,), generator=generator)
        boxes, scores, labels = (t.to(device.torch_device) for t in (boxes, scores, labels))
        soft = ("gaussian", 0.5, 0.5, 0.001, True)
        if not torch.equal(nms(boxes, scores, labels), reference_nms(boxes, scores, labels, 0.5, False)):
            raise SystemExit("nms is wrong")
        if not torch.allclose(soft_nms(boxes, scores), reference_soft_nms(boxes, scores, *soft), atol=1e-6):
            raise SystemExit("soft_nms is wrong")
        times = milliseconds(
            {
                "nms": lambda b=boxes, s=scores, n=labels: nms(b, s, n),
                "nms/torch": lambda b=boxes, s=scores, n=labels: reference_nms(b, s, n, 0.5, False),
                "soft_nms": lambda b=boxes, s=scores: soft_nms(b, s),
                "soft_nms/torch": lambda b=boxes, s=scores, a=soft: reference_soft_nms(b, s, *a),
            },
            max(3, values.repeats // 3),
            device=device,
        )
        figures[count] = times
        for name in ("nms", "soft_nms"):
            ratios[f"{name}/{count}/torch"] = times[f"{name}/torch"] / times[name]
        print(count, "boxes: ", "  ".join(f"{k} {v:.3f} ms" for k, v in times.items()))
    finish(values.json, figures, ratios, device)


if __name__ == "__main__":
    main()
