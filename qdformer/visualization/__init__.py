"""Pictures for people: label maps over frames, and one sheet for a whole clip."""

from .clip_sheet import clip_sheet
from .overlay import overlay

__all__ = ["clip_sheet", "overlay"]
