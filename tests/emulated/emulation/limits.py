"""What the emulated devices refuse, as the vendors' documents have it. A row: operators, refused types, source."""

import os

import torch

aten = torch.ops.aten
ANY = None
NPU = (
    (
        {aten.logit.default, aten.logit.out},
        {torch.float64, torch.int64},
        "CANN 8.3, aclnnLogit: BFLOAT16, FLOAT16 and FLOAT, on A2 and A3 alone",
    ),
    (
        ANY,
        {torch.float64},
        "CANN 8.3, aclnnConvolution, aclnnMatmul, aclnnSigmoid, ...: no DOUBLE; operators that name it (aclnnTopk, "
        "aclnnCast) run it on the CPU of the chip. ctnet needs none, so all are refused",
    ),
    (
        {aten.topk.default, aten.sort.default, aten.sort.stable},
        {torch.int64},
        "CANN 8.3, aclnnTopk names INT64, which runs on the CPU of the chip; aclnnSort as well",
    ),
)
SDAA = (
    (
        ANY,
        {torch.float64},
        "no document of TecoPyTorch names float64 for arithmetic; models of its zoo compute in float32 and float16",
    ),
    (
        {aten.topk.default, aten.sort.default, aten.sort.stable},
        {torch.int64},
        "no document of TecoPyTorch names them for 64-bit integers",
    ),
    (
        {aten._embedding_bag.default, aten._embedding_bag_forward_only.default, aten.bincount.default},
        ANY,
        "not among the operators that the models of Tecorigin's zoo use",
    ),
)
_MOVES = {aten.copy_.default, aten._to_copy.default, aten.detach.default, aten.view.default, aten.clone.default}


def missing():
    """Return rows for the operators that the environment takes away, such as `index_add_`."""
    words = [word for word in os.environ.get("EMULATED_MISSING", "").split(",") if word]
    return tuple(({getattr(aten, word).default}, ANY, "taken away by the test") for word in words)


def refusing(rows):
    """Return a function that raises for what the rows refuse."""

    def refuse(operator, args, kwargs):
        from emulation.tensor import CardTensor

        sizes = [value.numel() for value in args if isinstance(value, CardTensor)]
        if operator in _MOVES and kwargs.get("dtype") != torch.float64:
            return
        if sizes == [1]:  # torch's GradScaler, of which the vendors' are copies, inverts its scale in float64
            return
        types = {kwargs.get("dtype")}
        for value in args:
            for leaf in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(leaf, CardTensor):
                    types.add(leaf.dtype)
        for operators, refused, source in rows:
            if (operators is ANY or operator in operators) and (refused is ANY or types & refused):
                raise RuntimeError(f"{operator}: not on this device for {types & (refused or types)} ({source})")

    return refuse
