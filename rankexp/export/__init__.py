"""Adapters for other tools: PEFT's format, one rank for servers, or merged into the base; each checked once written."""

from rankexp.export.export import Exported, export
from rankexp.export.target import Format

__all__ = ["Exported", "Format", "export"]
