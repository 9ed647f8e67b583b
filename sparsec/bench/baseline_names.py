"""The names of what a pattern is measured against, and how tables call them; torch is not needed to know them."""

BASELINES = {
    "sdpa": "SDPA dense",
    "flash": "SDPA dense, FlashAttention",
    "cudnn": "SDPA dense, cuDNN",
    "flex": "FlexAttention",
    "flex64": "FlexAttention, blocks of 64",
    "masked": "SDPA masked",
    "gather": "gathered by hand",
    "window": "sparsec with a window of as many keys",
}
USUAL = ("sdpa", "flex")
"""Those that run if none is named; on a GPU SDPA runs as `flash` and `cudnn`."""
USUAL_WITH_INPUTS = ("sdpa", "masked", "flex", "gather")
"""The same of a pattern with inputs; over a cache beside `window`, which runs there alone."""
DENSE = ("sdpa", "flash", "cudnn")
"""Those that compute every pair."""
