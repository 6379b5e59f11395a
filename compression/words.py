"""What counts as a word: what stands between spaces, and in scripts that are written without any, each character."""

import re

# Chinese characters and Japanese kana, as in a character class of a regular expression.
SPACELESS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{SPACELESS}]|[^\s{SPACELESS}]+")


def words(text: str) -> list[re.Match[str]]:
    """The words in their order, each with its place in the text; punctuation belongs to a word or is one."""
    return list(_WORD.finditer(text))
