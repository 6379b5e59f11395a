import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from compression.data import read_examples
from compression.errors import CheckpointError
from compression.parent.checkpoint import Parent, load_parent
from compression.parent.classifier import ParentClassifier
from compression.parent.files import locate
from compression.parent.settings import load_config, settle_padding
from compression.parent.tokenizer import load_tokenizer
from compression.train.finetune import FinetuneOptions, finetune
from tests.handmade import make_bundle


def test_a_fine_tuned_directory_loads_with_its_labels_and_window(parent: Parent) -> None:
    assert parent.labels == ("negative", "positive")
    assert parent.max_length == 64
    assert not parent.model.training


def test_a_pickle_is_never_loaded(sentiment_parent: Path, tmp_path: Path) -> None:
    shutil.copytree(sentiment_parent, tmp_path / "p", ignore=shutil.ignore_patterns("*.safetensors"))

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "exploded",)

    torch.save({"weights": Bomb()}, tmp_path / "p" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is a pickle.*safe_serialization=True"):
        load_parent(str(tmp_path / "p"))
    assert not (tmp_path / "exploded").exists()


def test_a_model_that_brings_code_is_refused(sentiment_parent: Path, tmp_path: Path) -> None:
    shutil.copytree(sentiment_parent, tmp_path / "p")
    config = json.loads((tmp_path / "p" / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "evil.Model"}
    (tmp_path / "p" / "config.json").write_text(json.dumps(config))
    (tmp_path / "p" / "evil.py").write_text(f"open({str(tmp_path / 'exploded')!r}, 'w')")
    with pytest.raises(CheckpointError, match="auto_map"):
        load_parent(str(tmp_path / "p"))
    assert not (tmp_path / "exploded").exists()


def test_an_encoder_without_a_head_is_refused(encoder: Path) -> None:
    with pytest.raises(CheckpointError, match="lathe finetune"):
        load_parent(str(encoder))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "no such directory"),
        ("embedded:nothing", "there is all-MiniLM-L6-v2"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        locate(name)


def test_a_directory_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors"):
        load_parent(str(tmp_path))


def test_a_bundle_is_no_parent(tmp_path: Path) -> None:
    make_bundle(tmp_path / "mine")
    with pytest.raises(CheckpointError, match="mine: is a bundle; pass the model that it was made from"):
        load_parent(str(tmp_path / "mine"))
    with pytest.raises(CheckpointError, match=r"holds bundles; name one of them, such as .*/mine"):
        load_parent(str(tmp_path))


def test_the_embedded_encoder_is_the_published_one() -> None:
    assert (locate("embedded:all-MiniLM-L6-v2") / "model.safetensors").is_file()


def test_an_embedded_encoder_that_was_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from compression.parent.files import EMBEDDED_ENCODERS

    monkeypatch.setitem(EMBEDDED_ENCODERS["all-MiniLM-L6-v2"].sha256, "config.json", "0" * 64)
    with pytest.raises(CheckpointError, match=r"config\.json: sha256"):
        locate("embedded:all-MiniLM-L6-v2")


def test_an_adapter_is_merged_into_the_encoder_that_it_names(
    encoder: Path, sentiment_data: Path, tmp_path: Path
) -> None:
    rows = read_examples(sentiment_data)
    options = FinetuneOptions(epochs=3, batch_size=16, learning_rate=1e-2, lora_rank=4, precision="fp32")
    accuracy = finetune(str(encoder), rows, rows, tmp_path / "adapter", options)["accuracy"]
    adapter = load_parent(str(tmp_path / "adapter"))
    assert adapter.labels == ("negative", "positive")
    assert not any("lora" in name for name, _ in adapter.model.named_parameters())
    classifier = ParentClassifier(adapter)
    logits = classifier.forward([classifier.encode(text) for text in rows.texts])
    answers = [adapter.labels[index] for index in logits.argmax(axis=-1)]
    assert np.mean([want == got for want, got in zip(rows.labels, answers, strict=True)]) == pytest.approx(
        accuracy, abs=0.01
    )


def test_an_adapter_without_label_names_gets_numbered_ones(encoder: Path, sentiment_data: Path, tmp_path: Path) -> None:
    rows = read_examples(sentiment_data)
    options = FinetuneOptions(epochs=0.2, batch_size=16, lora_rank=2, precision="fp32")
    finetune(str(encoder), rows, rows, tmp_path / "adapter", options)
    (tmp_path / "adapter" / "config.json").unlink()
    assert load_parent(str(tmp_path / "adapter")).labels == ("LABEL_0", "LABEL_1")


@pytest.fixture(scope="module")
def adapter(sentiment_parent: Path, sentiment_data: Path, workspace: Path) -> Path:
    """A directory with an adapter, and its base beside it."""
    folder = workspace / "adapter-and-base"
    shutil.copytree(sentiment_parent, folder / "base")
    options = FinetuneOptions(epochs=0.2, batch_size=16, lora_rank=2, precision="fp32")
    finetune(str(folder / "base"), read_examples(sentiment_data), None, folder / "adapter", options)
    return folder


def test_an_adapter_in_a_pickle_is_refused_whatever_lies_beside_it(adapter: Path, tmp_path: Path) -> None:
    copy = copy_of(adapter, tmp_path, "adapter_config.json")
    (copy / "adapter_model.safetensors").rename(copy / "training_state.safetensors")
    (copy / "adapter_model.bin").write_bytes(b"a pickle")
    with pytest.raises(CheckpointError, match=r"has no adapter_model\.safetensors, only training_state\.safetensors"):
        load_parent(str(copy))


def copy_of(adapter: Path, folder: Path, name: str, **values: object) -> Path:
    """A copy of both whose adapter names the copied base; `values` go into the adapter's file `name`."""
    shutil.copytree(adapter, folder, dirs_exist_ok=True)
    changed = {"adapter_config.json": {"base_model_name_or_path": str(folder / "base")}}
    changed[name] = {**changed.get(name, {}), **values}  # type: ignore[dict-item]
    for file, more in changed.items():
        path = folder / "adapter" / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
    return folder / "adapter"


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("adapter_config.json", {"task_type": "TOKEN_CLS"}, "its adapter labels each token"),
        ("adapter_config.json", {"peft_type": "PREFIX_TUNING"}, "beside the text .peft_type PREFIX_TUNING."),
        (
            "adapter_config.json",
            {"target_modules": ["q_proj"]},
            "its adapter does not fit .*base: No modules were targeted",
        ),
    ],
)
def test_an_adapter_of_another_task_is_refused(
    adapter: Path, tmp_path: Path, name: str, values: dict[str, object], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_parent(str(copy_of(adapter, tmp_path, name, **values)))


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ("bert.encoder.layer.1.output.dense.bias", "1 weights are not in its files.*; save the model again$"),
        ("classifier.weight", None),  # the adapter brings it
        ("bert.pooler.dense.weight", None),
    ],
)
def test_the_base_of_an_adapter_must_be_whole_but_for_what_the_adapter_brings(
    adapter: Path, tmp_path: Path, lacking: str, message: str | None
) -> None:
    folder = copy_of(adapter, tmp_path, "config.json")
    state = load_file(tmp_path / "base" / "model.safetensors")
    del state[lacking]
    save_file(state, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    if message is None:
        load_parent(str(folder))
    else:
        with pytest.raises(CheckpointError, match=message):
            load_parent(str(folder))


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("base/config.json", {"layer_norm_eps": 1e-3}),
        ("adapter/adapter_config.json", {"lora_alpha": 64}),
        ("base/tokenizer_config.json", {"truncation_side": "left"}),
    ],
)
def test_what_decides_the_computation_beside_the_weights_has_a_digest(
    adapter: Path, tmp_path: Path, path: str, values: dict[str, object]
) -> None:
    folder = copy_of(adapter, tmp_path, "config.json")
    before = load_parent(str(folder))
    (tmp_path / path).write_text(json.dumps({**json.loads((tmp_path / path).read_text()), **values}))
    after = load_parent(str(folder))
    assert after.digest == before.digest
    assert after.settings_digest != before.settings_digest


def test_an_adapter_whose_config_is_broken_is_refused(adapter: Path, tmp_path: Path) -> None:
    folder = copy_of(adapter, tmp_path, "config.json")
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"adapter_config\.json is no JSON object; save the adapter again"):
        load_parent(str(folder))


def test_a_config_that_asks_for_tuples_gives_what_is_read_by_name(sentiment_parent: Path, tmp_path: Path) -> None:
    values = json.loads((sentiment_parent / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, "return_dict": False}))
    assert load_config(tmp_path).return_dict


def test_a_config_that_asks_for_attention_that_is_not_installed_is_answered_without(
    sentiment_parent: Path, tmp_path: Path
) -> None:
    shutil.copytree(sentiment_parent, tmp_path / "parent")
    values = json.loads((sentiment_parent / "config.json").read_text())
    (tmp_path / "parent" / "config.json").write_text(
        json.dumps({**values, "_attn_implementation": "flash_attention_2"})
    )
    assert load_parent(str(tmp_path / "parent")).model.config._attn_implementation == "sdpa"


def test_a_missing_padding_token_is_one_that_ends_no_text_or_refused(
    sentiment_parent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, tokenizer = load_config(sentiment_parent), load_tokenizer(sentiment_parent)
    for pad, expected in (("[PAD]", "[PAD]"), ("[SEP]", "[CLS]"), (None, "[CLS]")):  # each text ends with [SEP]
        config.pad_token_id, tokenizer.pad_token = None, pad
        settle_padding(config, tokenizer, "mine")
        assert tokenizer.pad_token == expected
        assert config.pad_token_id == tokenizer.pad_token_id
        assert ("'[CLS]' is taken" in capsys.readouterr().err) == (expected == "[CLS]")
    config.pad_token_id = tokenizer.pad_token = tokenizer.cls_token = None
    with pytest.raises(CheckpointError, match=r"mine: neither config\.json nor tokenizer has a padding token"):
        settle_padding(config, tokenizer, "mine")


def test_the_padding_token_is_the_configs(sentiment_parent: Path) -> None:
    config, tokenizer = load_config(sentiment_parent), load_tokenizer(sentiment_parent)
    config.pad_token_id = 7
    settle_padding(config, tokenizer, "mine")
    assert tokenizer.pad_token_id == 7
    config.pad_token_id = config.vocab_size
    with pytest.raises(CheckpointError, match=r"pad_token_id in its config\.json is .*, and the embedding table has"):
        settle_padding(config, tokenizer, "mine")


@pytest.mark.parametrize("stored", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_weights_without_their_scales_are_refused(sentiment_parent: Path, tmp_path: Path, stored: torch.dtype) -> None:
    shutil.copytree(sentiment_parent, tmp_path / "parent")
    file = tmp_path / "parent" / "model.safetensors"
    state = load_file(file)
    name = "bert.encoder.layer.0.output.dense.weight"
    save_file({**state, name: (40 * state[name]).to(stored)}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=f"is quantized already .{name} is stored as [IUF]8.*; pass the original"):
        load_parent(str(tmp_path / "parent"))


@pytest.mark.parametrize("values", [{"hidden_act": "nonsense"}, {"num_attention_heads": 5}, {"id2label": ["a", "b"]}])
def test_a_config_that_no_model_can_be_made_of_is_refused(
    sentiment_parent: Path, tmp_path: Path, values: dict[str, object]
) -> None:
    shutil.copytree(sentiment_parent, tmp_path / "parent")
    file = tmp_path / "parent" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **values}))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_parent(str(tmp_path / "parent"))
