"""A text of whose answer a bundle is not sure enough, through every route, `lathe.load` and the commands."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet
import pytest
from click.testing import CliRunner

import lathe
from compression.bundle import AbstainOptions, NumberOptions, open_bundle
from lathe import main
from tests.handmade import make_bundle
from tests.integration.conftest import serve

pytestmark = pytest.mark.integration

LABELS = ("bill", "card", "lost_or_stolen_card")
WORDS = {"invoice": (6.0, 0.0, 0.0), "visa": (0.0, 6.0, 0.0), "thief": (0.0, 0.0, 6.0), "hello": (1.0, 0.0, 0.0)}
TEXTS = ["invoice", "hello", "visa", "hello hello"]
TEMPERATURE = 2.0  # confidence 0.91, 0.45, 0.91, 0.58; without it 0.995, 0.58, 0.995, 0.79
ABSTAINED = [False, True, False, True]
ABSTAIN = AbstainOptions(below=0.6, error=0.05)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("abstaining")
    make_bundle(folder / "topics", WORDS, LABELS, TEMPERATURE, abstain=ABSTAIN)
    make_bundle(folder / "without", WORDS, LABELS, TEMPERATURE)
    make_bundle(folder / "sentiment", {"hello": (0.0, 2.0)})
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    models = (
        f"topics={folder}/topics,without={folder}/without,both={folder}/topics@1+{folder}/without@1,"
        f"sentiment={folder}/sentiment"
    )
    settings = {"LATHE_MODELS": models, "LATHE_BUNDLES_ROOT": str(folder), "LATHE_TRIAGE_INTENT": "topics",
                "LATHE_CACHE_BYTES": "100000"}  # fmt: skip
    with serve(folder / "log", settings) as service, httpx.Client(base_url=service.url, timeout=30) as client:
        yield client


def classify(client: httpx.Client, **body: object) -> list[dict[str, Any]]:
    answer = client.post("/v1/classify", json={"model": "topics", "inputs": TEXTS, **body}).raise_for_status()
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def counted(client: httpx.Client, model: str = "topics") -> float:
    lines = client.get("/metrics").text.splitlines()
    (line,) = (one for one in lines if one.startswith(f'lathe_abstained_texts_total{{model="{model}",role="live"}}'))
    return float(line.split()[-1])


def test_each_result_says_whether_the_model_abstains(client: httpx.Client) -> None:
    before = counted(client)
    results = classify(client)
    assert [result["abstained"] for result in results] == ABSTAINED
    assert [result["label"] for result in results] == ["bill", "bill", "card", "bill"]  # the answer stands all the same
    assert counted(client) == before + 2


def test_it_depends_neither_on_what_scores_are_asked_for_nor_on_the_cache(client: httpx.Client) -> None:
    for calibrated in (True, False, True):
        assert [result["abstained"] for result in classify(client, calibrated=calibrated)] == ABSTAINED


def test_a_model_without_a_threshold_says_nothing_of_it(client: httpx.Client) -> None:
    for model in ("without", "both"):
        assert not any("abstained" in result for result in classify(client, model=model))
    assert counted(client, "both.0") == 0
    served = {one["name"]: one["abstain_below"] for one in client.get("/v1/models").json()["models"]}
    assert served == {"topics": 0.6, "without": None, "both": None, "sentiment": None}


def test_texts_that_a_canary_without_a_threshold_answers_say_nothing(client: httpx.Client) -> None:
    client.post("/v1/models/topics/load", json={"bundle": "without", "canary": 50}).raise_for_status()
    try:
        texts = [f"hello {number}" for number in range(40)]
        said = [result.get("abstained") for result in classify(client, inputs=texts)]
        assert set(said) == {True, None}
        tensor = {"name": "text", "datatype": "BYTES", "shape": [40], "data": texts}
        outputs = client.post("/v2/models/topics/infer", json={"inputs": [tensor]}).json()["outputs"]
        assert outputs[2]["data"] == list(map(bool, said))
    finally:
        client.post("/v1/models/topics/drop").raise_for_status()


def test_triage_hands_over_what_the_intent_model_abstains_from(client: httpx.Client) -> None:
    results = client.post("/v1/triage", json={"inputs": [*TEXTS, "thief"]}).raise_for_status().json()["results"]
    assert [result["abstained"] for result in results] == [*ABSTAINED, False]
    reasons = [None, "low_confidence", None, "low_confidence", "listed_intent"]
    assert [result["reason"] for result in results] == reasons  # 0.58 is above the default of those without a threshold
    with lathe.Client(str(client.base_url)) as asking:
        assert asking.triage("hello")[0].abstained


@pytest.mark.parametrize("binary", [False, True])
def test_open_inference_has_an_output_of_it(client: httpx.Client, binary: bool) -> None:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(TEXTS)], "data": TEXTS}
    body = {"inputs": [tensor], "parameters": {"binary_data_output": binary}}
    answer = client.post("/v2/models/topics/infer", json=body).raise_for_status()
    length = int(answer.headers.get("inference-header-content-length", len(answer.content)))
    *_, abstained = json.loads(answer.content[:length])["outputs"]
    assert (abstained["name"], abstained["datatype"], abstained["shape"]) == ("abstained", "BOOL", [4])
    assert abstained.get("data", [bool(byte) for byte in answer.content[-4:]]) == ABSTAINED
    described = client.get("/v2/models/topics").json()["outputs"]
    assert [one["name"] for one in described] == ["label", "scores", "abstained"]


def test_open_inference_refuses_it_of_a_model_without_a_threshold(client: httpx.Client) -> None:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["visa"]}
    assert len(client.post("/v2/models/without/infer", json={"inputs": [tensor]}).json()["outputs"]) == 2
    assert len(client.get("/v2/models/without").json()["outputs"]) == 2
    body = {"inputs": [tensor], "outputs": [{"name": "abstained"}]}
    refused = client.post("/v2/models/without/infer", json=body)
    assert refused.status_code == 400
    assert "has no threshold to abstain below" in refused.json()["error"]


def test_the_client_and_lathe_load_say_the_same(client: httpx.Client, folder: Path) -> None:
    with lathe.Client(str(client.base_url)) as asking:
        there = asking.classify(TEXTS, model="topics")
        assert [answer.abstained for answer in asking.classify(TEXTS, model="without")] == [None] * 4
    here = lathe.load(folder / "topics")(TEXTS)
    assert [answer.abstained for answer in there] == [answer.abstained for answer in here] == ABSTAINED
    assert [answer.abstained for answer in lathe.load(folder / "without")(TEXTS)] == [None] * 4


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_score_has_a_column_of_it(folder: Path, tmp_path: Path, kind: str) -> None:
    source, out = tmp_path / f"in.{kind}", tmp_path / f"out.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": [*TEXTS, ""]}), source)
    elif kind == "jsonl":
        source.write_text("\n".join(json.dumps({"text": text}) for text in [*TEXTS, ""]), "utf-8")
    else:
        source.write_text("text\n" + "\n".join([*TEXTS, '""']) + "\n", "utf-8")
    result = CliRunner().invoke(main, ["score", f"{folder}/topics", "--in", str(source), "--out", str(out)])
    assert result.exit_code == 0, result.output
    expected: list[object] = [*ABSTAINED, None]
    if kind == "parquet":
        assert pyarrow.parquet.read_table(out).column("abstained").to_pylist() == expected
    elif kind == "jsonl":
        assert [json.loads(line)["abstained"] for line in out.read_text("utf-8").splitlines()] == expected
    else:
        with out.open(encoding="utf-8") as file:
            assert [row["abstained"] for row in csv.DictReader(file)] == ["false", "true", "false", "true", ""]


def test_score_has_no_such_column_where_there_is_no_threshold(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\nvisa\n", "utf-8")
    arguments = ["score", f"{folder}/without", "--in", f"{tmp_path}/in.csv", "--out", f"{tmp_path}/out.csv"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert (tmp_path / "out.csv").read_text("utf-8").splitlines()[0] == "text,label,score,note"


def test_inspect_and_evaluate_say_it(folder: Path, tmp_path: Path) -> None:
    shown = CliRunner().invoke(main, ["inspect", f"{folder}/topics"])
    assert "abstains    below a confidence of 0.6000, for an error of 5 %" in shown.output
    assert "abstains" not in CliRunner().invoke(main, ["inspect", f"{folder}/without"]).output
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\ninvoice,bill\nhello,card\nvisa,bill\nthief,lost_or_stolen_card\n", "utf-8")
    figures = json.loads(
        CliRunner().invoke(main, ["evaluate", f"{folder}/topics", "--data", str(rows), "--json"]).stdout
    )
    assert figures["coverage"] == 3 / 4
    assert figures["selective_accuracy"] == pytest.approx(2 / 3)
    plain = CliRunner().invoke(main, ["evaluate", f"{folder}/without", "--data", str(rows), "--json"])
    assert "coverage" not in json.loads(plain.stdout)


def test_the_threshold_is_part_of_the_bundle_and_older_bundles_have_none(folder: Path) -> None:
    assert open_bundle(folder / "topics").manifest.runtime.abstain == ABSTAIN
    assert open_bundle(folder / "topics").version != open_bundle(folder / "without").version
    assert "abstain" not in (folder / "without" / "bundle.json").read_text("utf-8")
    number = NumberOptions(function="none", spread=1)
    with pytest.raises(ValueError, match="a number has no confidence"):
        make_bundle(folder / "number", {"hello": (1.0,)}, ("price",), number=number, abstain=ABSTAIN)


def test_of_several_labels_all_have_to_be_sure(tmp_path: Path) -> None:
    words = {"invoice": (3.0, -3.0), "visa": (3.0, 0.5), "hello": (-3.0, -3.0)}
    abstain = AbstainOptions(below=0.8, error=0.05)
    bundle = make_bundle(tmp_path / "several", words, ("bill", "card"), thresholds=(0.5, 0.5), abstain=abstain)
    assert bundle.abstains(np.array(list(words.values()), np.float32)) == [False, True, False]


def test_bundles_are_compared_by_what_they_answer(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.csv"
    data.write_text("text,label\ninvoice,bill\nhello,card\nvisa,bill\nhello hello,bill\n", "utf-8")
    paths = [str(folder / name) for name in ("topics", "without")]
    result = CliRunner().invoke(main, ["compare", *paths, "--data", str(data), "--json"])
    assert result.exit_code == 0, result.output
    topics, without = json.loads(result.stdout)["entries"]
    assert (topics["coverage"], topics["selective_accuracy"]) == (0.5, 0.5)  # of invoice and visa
    assert (without["coverage"], without["selective_accuracy"]) == (None, None)
    page = tmp_path / "compare.html"
    output = CliRunner().invoke(main, ["compare", *paths, "--data", str(data), "--html", str(page)]).output
    assert "answered, %" in output
    assert "right of these, %" in page.read_text("utf-8")
    output = CliRunner().invoke(main, ["compare", paths[1], "--data", str(data), "--html", str(page)]).output
    assert "answered, %" not in output + page.read_text("utf-8")
