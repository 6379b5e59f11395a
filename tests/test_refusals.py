"""What `lathe compress` says of a parent or a data file that it cannot use, or that proves little."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from compression.bundle import Bundle, SingleLabel
from compression.bundle.storage import require_replaceable
from compression.data import read_examples, split_examples
from compression.errors import StorageError
from compression.task import doubts
from lathe import main

Change = Callable[[Path], object]


def compress(parent: Path, data: Path, out: Path, *more: str) -> Result:
    cache = str(out.parent / "cache")
    return CliRunner().invoke(
        main, ["compress", str(parent), "--data", str(data), "--out", str(out), "--cache", cache, *more]
    )


def require_refused(result: Result, out: Path, message: str) -> None:
    """One sentence, exit code 1, and nothing written."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not out.exists()


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def apply(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors", {"format": "pt"})

    return apply


def config(**values: Any) -> Change:
    def apply(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return apply


def without(*names: str) -> Change:
    def apply(folder: Path) -> None:
        for name in names:
            (folder / name).unlink(missing_ok=True)

    return apply


def without_fast_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CanineTokenizer"}')


def a_folder_in_place_of_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()


def cut(size: int) -> Change:
    def apply(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:size])

    return apply


def renamed(prefix: str) -> Change:
    """Weights under names with a prefix, as a model that torch.compile wraps saves them."""

    def apply(state: dict[str, torch.Tensor]) -> None:
        for name in list(state):
            state[prefix + name] = state.pop(name)

    return weights(apply)


def another_token(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<order>"])
    tokenizer.save_pretrained(folder)


PARENTS: dict[str, tuple[Change, str]] = {
    "NaN": (
        weights(lambda state: state["bert.encoder.layer.0.output.dense.weight"][0].fill_(torch.nan)),
        "bert.encoder.layer.0.output.dense.weight holds values that are not finite",
    ),
    "infinity": (
        weights(lambda state: state["classifier.bias"].fill_(torch.inf)),
        "classifier.bias holds values that are not finite",
    ),
    "empty weights": (cut(0), "weights cannot be read"),
    "half of the weights": (cut(5000), "weights cannot be read"),
    "no file of weights": (a_folder_in_place_of_weights, "weights cannot be read"),
    "no head": (weights(lambda state: state.pop("classifier.weight")), "classifier.weight among them"),
    "no layer": (
        weights(lambda state: state.pop("bert.encoder.layer.1.output.dense.bias")),
        "1 weights are not in its files, bert.encoder.layer.1.output.dense.bias",
    ),
    "fewer labels than the head": (
        config(id2label={"0": "a", "1": "b", "2": "c"}, label2id={"a": 0, "b": 1, "c": 2}),
        "which lists 3 labels",
    ),
    "names of torch.compile": (renamed("_orig_mod."), "torch.compile had wrapped it: save model._orig_mod"),
    "numbers": (config(problem_type="regression"), "gives 2 numbers to a text (problem_type regression); Lathe takes"),
    "one label of any number": (
        config(id2label={"0": "a"}, label2id={"a": 0}, problem_type="multi_label_classification"),
        "has one label, and problem_type multi_label_classification in its config.json; set that to null",
    ),
    "labels of tokens": (
        config(architectures=["BertForTokenClassification"]),
        "BertForTokenClassification labels each token; Lathe takes",
    ),
    "pairs of texts": (
        config(id2label={"0": "ENTAILMENT", "1": "not_entailment"}, label2id={"ENTAILMENT": 0, "not_entailment": 1}),
        "judges pairs of texts (its labels are entailment, not_entailment)",
    ),
    "quantized": (
        config(quantization_config={"quant_method": "gptq", "bits": 4}),
        "is quantized already (gptq); pass the original, in float",
    ),
    "sparse attention": (
        config(model_type="big_bird", attention_type="block_sparse"),
        "big_bird attends to parts of a long text, which an exported graph does not; set attention_type",
    ),
    "windows of attention": (
        config(model_type="longformer"),
        "longformer attends to parts of a long text, which an exported graph does not; fine-tune another",
    ),
    "rotary positions that are not read": (
        config(rope_parameters={"rope_type": "default", "rope_theta": 1e6}),
        "which transformers 5",
    ),
    "no room for words": (
        lambda folder: (folder / "tokenizer_config.json").write_text(
            json.dumps({**json.loads((folder / "tokenizer_config.json").read_text()), "model_max_length": 2})
        ),
        "a text may have 2 tokens, and 2 are special ones",
    ),
    "answers to questions": (config(architectures=["BertForQuestionAnswering"]), "marks an answer in a text"),
    "a token without a row": (another_token, "1 tokens that the embedding table has no row for, '<order>' among them"),
    "one label that excludes others": (config(id2label={"0": "negative"}, label2id={"negative": 0}), "num_labels > 1"),
    "a label that is no line": (
        config(id2label={"0": "a\x1b[31m", "1": "b"}),
        "in its config.json holds a control char",
    ),
    "labels of one name": (config(id2label={"0": "same", "1": "same"}), "each with a name of its own"),
    "labels not numbered from 0": (config(id2label={"1": "a", "2": "b"}), "numbered from 0 on"),
    "no fast tokenizer": (without_fast_tokenizer, "CanineTokenizer has no fast version"),
    "no tokenizer": (
        without("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
        "no usable tokenizer",
    ),
    "a broken tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{"), "no usable tokenizer"),
    "no config": (without("config.json"), "has no config.json"),
    "a broken config": (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be used"),
}


@pytest.mark.parametrize("name", PARENTS)
def test_a_parent_that_cannot_be_used_is_refused(
    name: str, sentiment_parent: Path, sentiment_data: Path, tmp_path: Path
) -> None:
    change, message = PARENTS[name]
    shutil.copytree(sentiment_parent, tmp_path / "parent")
    change(tmp_path / "parent")
    result = compress(tmp_path / "parent", sentiment_data, tmp_path / "out")
    require_refused(result, tmp_path / "out", message)
    assert str(tmp_path / "parent") in result.stderr


def jsonl(*texts: object) -> str:
    return "\n".join(json.dumps({"text": text}) for text in texts)


DATA: dict[str, tuple[str, str, Sequence[str], str]] = {
    "nothing": ("csv", "", (), "is empty; its first line must name the columns"),
    "a heading alone": ("csv", "text,label\n", (), "no rows"),
    "an empty parquet": ("parquet", "", (), "not a parquet file"),
    "a blank text": ("csv", "text\na good day\n   \n", (), "line 3: has an empty 'text'"),
    "no such text column": ("csv", "text\nx\n", ("--text-column", "body"), "no column 'body', only text"),
    "no such label column": ("csv", "text\nx\n", ("--label-column", "mood"), "no row has a column 'mood'"),
    "a list": ("jsonl", jsonl("good", ["bad"]), (), "line 2: has a list in 'text'"),
    "an object": ("jsonl", jsonl({"en": "bad"}), (), "line 1: has an object in 'text'"),
    "half a surrogate pair": ("jsonl", jsonl("good", "\ud800"), (), "line 2: has half a surrogate pair"),
    "no second text": ("csv", "text,text_pair\na,b\nc,\n", ("--text-pair-column", "text_pair"), "line 3: has an empty"),
    "another label": ("csv", "text,label\ngood,positive\nwell,neutral\n", (), "labels that the model does not have"),
    "1 text": ("csv", "text\na good day\n", (), "each part needs some"),
    "copies of 1 text": ("csv", "text\n" + "a good day\n" * 50, (), "each part needs some"),
    "the same texts in both splits": (
        "csv",
        "text,split\n" + "".join(f"day {n},{side}\n" for n in range(9) for side in ("calibration", "test")),
        (),
        "0 texts to calibrate with, 0 to select with and 9 to test with, copies counted in one part only",
    ),
}


@pytest.mark.parametrize("name", DATA)
def test_data_that_cannot_be_used_is_refused(name: str, sentiment_parent: Path, tmp_path: Path) -> None:
    suffix, content, options, message = DATA[name]
    path = tmp_path / f"rows.{suffix}"
    path.write_text(content, "utf-8")
    result = compress(sentiment_parent, path, tmp_path / "out", *options)
    require_refused(result, tmp_path / "out", message)
    assert str(path) in result.stderr


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_file_that_cannot_be_read_is_refused(suffix: str, sentiment_parent: Path, tmp_path: Path) -> None:
    unreadable = Path("/proc/self/mem")  # for root too: its first page is never there
    if not unreadable.is_file():
        pytest.skip("/proc has no file that cannot be read")
    path = tmp_path / f"rows.{suffix}"
    path.symlink_to(unreadable)
    require_refused(compress(sentiment_parent, path, tmp_path / "out"), tmp_path / "out", f"{path}: ")


def test_texts_that_differ_in_no_letter_are_not_copies(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text\n" + "\n".join("\N{SLIGHTLY SMILING FACE}" * (n + 1) for n in range(60)), "utf-8")
    assert len(split_examples(read_examples(path), path).calibration) > 10


ROWS = [f"{word} day number {n}" for n in range(60) for word in ("good", "bad")]
DOUBTS: dict[str, tuple[list[str], list[str]]] = {
    "none": ([f"{text},{'negative' if 'bad' in text else 'positive'},test" for text in ROWS], []),
    "no labels at all": ([f"{text},,test" for text in ROWS], []),
    "one label": ([f"{text},positive,test" for text in ROWS], ["all test texts have the label 'positive'"]),
    "an empty class": (
        [f"{text},{'negative' if 'bad' in text else 'positive'},test" for text in ROWS],
        ["no test text has the label 'neutral'"],
    ),
    "few texts": ([f"{text},,test" for text in ROWS[:29]], ["only 29 texts judge the bundle"]),
    "texts in two splits": (
        [*(f"{text},,test" for text in ROWS), f"{ROWS[0]},,calibration", f"{ROWS[1]}!,,selection"],
        ["2 texts stand in two splits"],
    ),
}


@pytest.mark.parametrize("name", DOUBTS)
def test_what_makes_the_proof_weak_is_said(name: str, tmp_path: Path) -> None:
    rows, expected = DOUBTS[name]
    path = tmp_path / "rows.csv"
    others = "\n".join(f"text {n},,{side}" for n in range(9) for side in ("calibration", "selection")[n % 2 :][:1])
    path.write_text("text,label,split\n" + "\n".join(rows) + f"\n{others}\n", "utf-8")
    task = SingleLabel(("negative", "positive", *(["neutral"] if name == "an empty class" else [])))
    found = doubts(split_examples(read_examples(path), path), task)
    assert [doubt.startswith(start) for doubt, start in zip(found, expected, strict=True)] == [True] * len(expected)


def test_text_of_one_label_makes_a_bundle_a_warning_and_no_temperature(
    sentiment_parent: Path, sentiment_data: Path, tmp_path: Path
) -> None:
    lines = sentiment_data.read_text("utf-8").splitlines()
    path = tmp_path / "rows.csv"
    path.write_text("\n".join([lines[0], *(line for line in lines if line.endswith(",positive"))]), "utf-8")
    result = compress(sentiment_parent, path, tmp_path / "out", "--recipe", "float")
    assert result.exit_code == 0, result.output
    assert f"warning: {path}: all test texts have the label 'positive'" in result.stderr
    manifest = json.loads((tmp_path / "out" / "bundle.json").read_text("utf-8"))
    assert manifest["runtime"]["temperature"] == 1
    assert [one["label"] for one in manifest["figures"]["classes"]] == ["positive"]


NOWHERE = Path("/proc/self")  # where root can write no file either


@pytest.mark.skipif(not NOWHERE.is_dir(), reason="there is no /proc")
def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"/proc/self cannot be written to: .*; make room there, or name another"):
        require_replaceable(NOWHERE / "mine")
    require_replaceable(tmp_path / "bundles" / "mine")
    options = ["compress", "no such parent", "--data", "no such file.csv", "--out", str(tmp_path / "out")]
    for unusable in (["--cache", str(NOWHERE / "cache")], ["--out", str(NOWHERE / "out")]):
        result = CliRunner().invoke(main, [*options, *unusable])
        assert result.exit_code == 1
        assert f"error: {NOWHERE}" in result.stderr
        assert f"another directory with {unusable[0]}" in result.stderr


def test_a_home_that_is_not_there_is_noticed_before_the_work(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main, ["compress", "no such parent", "--data", "no such file.csv", "--out", str(tmp_path / "out")],
        env={"HOME": str(NOWHERE / "home"), "XDG_CACHE_HOME": None},
    )  # fmt: skip
    assert result.exit_code == 1
    assert f"error: {NOWHERE}/home/.cache/lathe: {NOWHERE} cannot be written to: " in result.stderr
    assert "or name another directory with --cache" in result.stderr


def run_without_torch(*arguments: str) -> str:
    """What a command says where torch and transformers cannot be imported."""
    program = """
import importlib.machinery, sys
class Blocked:  # they are there, and cannot be imported
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name in ("torch", "transformers") else None
    def create_module(self, spec):
        raise ImportError(f"{spec.name} is imported")
    def exec_module(self, module):
        pass
sys.meta_path.insert(0, Blocked())
import lathe
lathe.main()
"""
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2), done.stderr
    return done.stderr


WRONG = {
    "no such recipe": (["--recipe", "nope"], "error: nope: "),
    "no such bound": (["--budget", "nope=3"], "error: --budget: nope: "),
    "a file as OUT": (["--out", "ROWS"], "rows.csv"),
    "no such column": (["--text-column", "body"], "no column 'body'"),
    "no such parent": (["--recipe", "float"], "./no such parent: no such directory"),
    "finetune: no such parent": (None, "./no such parent: no such directory"),
    "finetune: a row without label": (["--data", "BAD"], "bad.csv: line 3: has no label, as 1 more; fill it in, or"),
    "finetune: a taken directory": (["--out", "TAKEN"], "holds files that lathe finetune has not written"),
    "evaluate: no such parent": ([], "./no such parent: no such directory"),
    "evaluate: no such other": (["--against", "./other"], "error: ./other: no such directory"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_the_arguments_is_said_before_torch_is_imported(
    name: str, encoder: Path, tmp_path: Path
) -> None:
    more, message = WRONG[name]
    (tmp_path / "rows.csv").write_text("text,label\na good day,a\na bad day,b\n", "utf-8")
    (tmp_path / "bad.csv").write_text("text,label\na good day,a\na bad day,\nmy day,\n", "utf-8")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").touch()
    places = {"ROWS": tmp_path / "rows.csv", "BAD": tmp_path / "bad.csv", "TAKEN": tmp_path / "taken"}
    command = name.partition(":")[0] if ":" in name else "compress"
    parent = str(encoder) if name == "evaluate: no such other" else "./no such parent"
    out = [] if command == "evaluate" else ["--out", str(tmp_path / "out")]
    cache = ["--cache", str(tmp_path / "cache")] if command == "compress" else []
    options = [str(places.get(one, one)) for one in more or []]
    said = run_without_torch(command, parent, "--data", str(tmp_path / "rows.csv"), *out, *cache, *options)
    assert message in said
    assert "Traceback" not in said


def test_numbers_that_stand_for_labels_are_named(
    sentiment_bundle: Bundle, sentiment_data: Path, tmp_path: Path
) -> None:
    data = tmp_path / "numbers.csv"
    data.write_text(sentiment_data.read_text().replace(",negative", ",0").replace(",positive", ",1"))

    def evaluate(path: Path, *more: str) -> Result:
        command = ["evaluate", str(sentiment_bundle.path), "--data", str(path), "--json", *more]
        return CliRunner().invoke(main, command)

    assert "say which of them each stands for, as --label-name 0=negative" in evaluate(data).stderr
    named = evaluate(data, "--label-name", "0=negative", "--label-name", "1=positive")
    assert json.loads(named.stdout) == json.loads(evaluate(sentiment_data).stdout)
    swapped = evaluate(data, "--label-name", "0=positive", "--label-name", "1=negative")
    assert json.loads(swapped.stdout)["accuracy"] == pytest.approx(1 - json.loads(named.stdout)["accuracy"])
    assert "'0' is not VALUE=LABEL, like 0=negative" in evaluate(data, "--label-name", "0").stderr


@pytest.mark.parametrize(
    "option",
    ["--epochs nan", "--epochs inf", "--learning-rate nan", "--weight-decay nan", "--dropout nan", "--seed -1"],
)
def test_a_number_that_nothing_can_be_trained_with_is_refused(option: str, tmp_path: Path) -> None:
    command = ["finetune", "no parent", "--data", "rows.csv", "--out", str(tmp_path / "out"), *option.split()]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert f"Invalid value for '{command[6]}'" in result.stderr
