"""Adapters for other tools: PEFT's format, one rank for servers, or merged into the base; each checked once written."""

from rankexp.export.export import Exported, Format, export

__all__ = ["Exported", "Format", "export"]
