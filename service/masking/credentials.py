"""What opens doors: passwords in addresses and settings, API keys, tokens, private keys."""

import re

from service.masking.recogniser import Recogniser

_BEGIN, _END = r"(?<![0-9A-Za-z_-])", r"(?![0-9A-Za-z_-])"

RECOGNISERS = [
    Recogniser(
        "PRIVATE_KEY",
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,32}PRIVATE KEY-----|\Z)",
            re.DOTALL,
        ),
        1.0,
        needs="PRIVATE KEY",
    ),
    Recogniser(
        "JWT", re.compile(_BEGIN + r"eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]*" + _END), 1.0, needs="eyJ"
    ),
    Recogniser(
        "API_KEY",
        re.compile(
            _BEGIN + r"(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[0-9A-Za-z]{36,}|github_pat_[0-9A-Za-z_]{22,}"
            r"|glpat-[0-9A-Za-z_-]{20,}"
            r"|(?:sk|pk|rk)[-_](?:[a-z]{3,8}[-_])?[0-9A-Za-z_-]{16,}|xox[abeoprs]-[0-9A-Za-z-]{10,}|AIza[0-9A-Za-z_-]{35}"
            r"|hf_[0-9A-Za-z]{20,}|npm_[0-9A-Za-z]{36}|pypi-[0-9A-Za-z_-]{32,}|lathe_[0-9A-Za-z_-]{20,})" + _END
        ),
        1.0,
    ),
    Recogniser(  # http://name:password@host, and the connection strings of databases and queues
        "CREDENTIALS",
        re.compile(
            r"(?<![0-9A-Za-z])[A-Za-z][0-9A-Za-z+.-]{1,31}://[^\s/@:]{0,256}:[^\s/@]{1,256}@[^\s<>\"'，。]{1,1024}"
        ),
        1.0,
        needs="://",
    ),
    Recogniser(
        "CREDENTIALS",
        re.compile(
            r"(?:\b(?:password|passwd|pwd|secret|(?:api|access)[_-]?key|accountkey|sharedaccesskey"
            r"|(?:access|auth|bearer)[_-]?token)|密码|口令)\s{0,3}(?:[:=]|是|为)\s{0,3}[\"']?(?P<value>[^\s\"';,，。；]{4,256})",
            re.IGNORECASE,
        ),
        0.8,
    ),
    Recogniser("CREDENTIALS", re.compile(r"\bBearer\s{1,3}(?P<value>[0-9A-Za-z._~+/-]{16,}=*)"), 0.9, needs="Bearer"),
]
