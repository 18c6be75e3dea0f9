"""A turn of a conversation, as everything here that reads or writes text passes it on."""

from __future__ import annotations

Message = dict[str, str]
"""``{"role": "system" | "user" | "assistant", "content": text}``."""
