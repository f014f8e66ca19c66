# SPDX-License-Identifier: Apache-2.0
"""PaddleSeg's YAML configurations, read strictly: `_base_`, `_inherited_`, `type` mappings, `--opts` overrides."""

__all__ = ["Config"]


def __getattr__(name: str):
    """`Config` when it is first used: it knows all components and so imports Paddle, which reading a file does not need."""
    if name != "Config":
        raise AttributeError(f"module 'paddle_dnl.config' has no attribute {name!r}")
    from paddle_dnl.config.config import Config

    return Config
