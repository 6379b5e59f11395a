"""What is wrong with a body, for who sent it: the field, what stands there, what to send; never the text itself."""

from typing import Any

from pydantic import ValidationError

# Of the alternatives that inputs have; a client knows nothing of them.
_TAGS = ("one text", "many texts", "one pair", "many pairs", "batch")
_SENTENCES = {  # by pydantic's type of the error
    "missing": "is missing; send it",
    "extra_forbidden": "there is no such field; leave it out",
    "value_error": "{message}",  # our own
    "inputs_type": "is {what}; send {message}",  # so is this
    "string_too_short": "is empty; send a character or more",
    "too_short": "is empty; send one or more",
    "too_long": "has {actual_length} in its list; send at most {max_length}",
    "json_invalid": "is not JSON: {error}; send an object, in UTF-8",
    "string_type": "is {what}; send a string",
    "int_type": "is {what}; send a whole number",
    "int_from_float": "is {value}; send a whole number",
    "int_parsing_size": "is {what}; send a whole number",
    "float_type": "is {what}; send a number",
    "finite_number": "is not finite; send a number that is",
    "bool_type": "is {what}; send true or false",
    "list_type": "is {what}; send a list",
    "model_type": "is {what}; send an object",
    "greater_than_equal": "is {value}; send a number from {ge:g} on",
    "less_than_equal": "is {value}; send a number up to {le:g}",
    "literal_error": "is {what}; send {expected}",
}
_KINDS = {str: "a string", bool: "true or false", type(None): "null", list: "a list", dict: "an object"}


def problems(error: ValidationError) -> list[str]:
    """One sentence for each error of a body, `field: is this; send that`."""
    found = []
    for problem in error.errors(include_url=False):
        place = ".".join(str(part)[:64] for part in problem["loc"] if part not in _TAGS) or "body"
        value: Any = problem["input"]
        sentence = _SENTENCES.get(problem["type"], "{message}").format(
            what=_KINDS.get(type(value), "a number"),
            value=f"{value:.16g}" if isinstance(value, float) else _short(value),
            message=problem["msg"].removeprefix("Value error, "),
            **problem.get("ctx", {}),
        )
        found.append(f"{place}: {sentence}")
    return found


def _short(value: object) -> str:
    """A whole number; of many digits Python does not write it."""
    return str(value) if isinstance(value, int) and abs(value) < 10**16 else "a number"
