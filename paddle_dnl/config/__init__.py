"""PaddleSeg's YAML configurations, read strictly: `_base_`, `_inherited_`, `type` mappings, `--opts` overrides."""

from paddle_dnl.config.config import Config

__all__ = ["Config"]
