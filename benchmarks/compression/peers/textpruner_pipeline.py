"""TextPruner's pipeline: heads and FFN neurons without labels, then the vocabulary; in float32, it does not quantize.

    python textpruner_pipeline.py PARENT TEXTS OUT

Two thirds of the heads and of the neurons stay, which is the setting of its paper (Yang et al., ACL 2022) and of its
examples; scores come from the model's own logits (`use_logits`), over layers of unequal size. Such a model cannot be
saved by TextPruner itself: it is exported to ONNX from memory.

PARENT is a Hugging Face directory, TEXTS a JSON file (see ../peer.py); model.onnx and tokenizer.json go to OUT.
"""

import json
import shutil
import sys
from pathlib import Path

from optimum.exporters.onnx import onnx_export_from_model
from textpruner import GeneralConfig, PipelinePruner, TransformerPruningConfig
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertTokenizerFast

SCORING_TEXTS = 256
ITERATIONS = 4


def main(parent: Path, texts: Path, out: Path) -> None:
    """Prunes and exports."""
    model = AutoModelForSequenceClassification.from_pretrained(parent, attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(parent)
    calibration = json.loads(texts.read_text("utf-8"))["calibration"]

    def collate(batch: list[str]) -> dict[str, object]:
        return dict(tokenizer(batch, padding=True, truncation=True, return_tensors="pt"))

    heads, neurons = model.config.num_attention_heads, model.config.intermediate_size
    pruner = PipelinePruner(
        model,
        tokenizer,
        TransformerPruningConfig(
            target_ffn_size=neurons * 2 // 3,
            target_num_of_heads=heads * 2 // 3,
            pruning_method="iterative",
            n_iters=ITERATIONS,
            ffn_even_masking=False,
            head_even_masking=False,
            multiple_of=64,
            use_logits=True,
        ),
        general_config=GeneralConfig(use_device="cpu", output_dir=str(out / "pruned")),
    )
    pruner.transformer_pruner.model_rep.float()  # TextPruner makes it half precision, which takes minutes on a CPU
    pruner.prune(
        dataloader=DataLoader(calibration[:SCORING_TEXTS], batch_size=32, collate_fn=collate),
        dataiter=calibration,
        save_model=False,
    )
    model.eval()
    kept = tokenizer.convert_ids_to_tokens(pruner.vocabulary_pruner.pruned_token_ids)
    vocabulary = out / "vocab.txt"
    vocabulary.write_text("\n".join(kept) + "\n", "utf-8")
    model.config.vocab_size = len(kept)
    fast = BertTokenizerFast(vocab_file=str(vocabulary), do_lower_case=tokenizer.do_lower_case)
    fast.backend_tokenizer.save(str(out / "tokenizer.json"))
    exported = out / "exported"  # the parent's tokenizer is written there too
    onnx_export_from_model(
        model, exported, opset=18, task="text-classification", library_name="transformers", do_validation=False
    )
    shutil.move(exported / "model.onnx", out / "model.onnx")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
