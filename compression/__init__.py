"""Turns a fine-tuned text classifier (the parent) into a bundle: small, fast, verified against its parent."""

import os

# ONNX Runtime and BentoML report their use to their makers unless these are set before they start. That is done here,
# against the rule that nothing is done at import, because no other line surely runs before either of them in every
# process: commands, workers (`service` imports this first), programs that use the packages. What a user set stays.
# tiktoken keeps a copy of each file that it reads, and reads that the next time, whatever has become of the file.
for _variable, _off in (("ORT_DISABLE_TELEMETRY", "1"), ("BENTOML_DO_NOT_TRACK", "True"), ("TIKTOKEN_CACHE_DIR", "")):
    os.environ[_variable] = os.environ.get(_variable) or _off
