"""Pictures of patterns, models and caches, as text, SVG and HTML; all numbers come from `analysis.coverage`."""
