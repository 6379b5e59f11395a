"""What is personal or secret in a text: found by its form, and masked."""

from service.masking.masker import TYPES, Masked, Masker, Mode, require_maskable
from service.masking.recogniser import Entity

__all__ = ["TYPES", "Entity", "Masked", "Masker", "Mode", "require_maskable"]
