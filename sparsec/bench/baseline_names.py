"""The names of what a pattern is measured against, and how tables call them; torch is not needed to know them."""

FLASH_ATTN = "flash-attn"
BASELINES = {
    "sdpa": "SDPA dense",
    "flash": "SDPA dense, FlashAttention",
    "cudnn": "SDPA dense, cuDNN",
    FLASH_ATTN: "flash-attn dense",
    "flex": "FlexAttention",
    "flex64": "FlexAttention, blocks of 64",
    "masked": "SDPA masked",
    "gather": "gathered by hand",
    "window": "sparsec with a window of as many keys",
}
GRADIENT_BASELINES = {**BASELINES, "eager": "eager masked attention"}
USUAL = ("sdpa", "flex")
"""Those that run if none is named; on a GPU SDPA runs as `flash` and `cudnn`."""
USUAL_WITH_INPUTS = ("sdpa", "masked", "flex", "gather")
"""The same of a pattern with inputs; over a cache beside `window`, which runs there alone."""
DENSE = ("sdpa", "flash", "cudnn", FLASH_ATTN)
"""Those that compute every pair."""


def baseline_label(name: str) -> str:
    """How a table calls a baseline; that of one's own is its name."""
    return GRADIENT_BASELINES.get(name, name)
