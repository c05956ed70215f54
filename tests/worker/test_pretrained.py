"""Pretrained networks from a local folder: tiny ones made here, and folders that are refused."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from service.db.engine import Database
from service.errors import ServiceError
from service.settings import Settings
from tests.worker.jobs import make_document, read_result, read_rows, run_to_end, sqlite_alone
from worker.models.pretrained import (
    build_sequence_classifier,
    check_folder,
    load_tokenizer,
    read_image_form,
)

transformers = pytest.importorskip("transformers")

WORDS = ["good", "bad", "fine", "poor", "day"]
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
TRAINING = {"epochs": 1, "batch_size": 8}


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A folder with a tiny BERT of random weights and its tokenizer."""
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=5 + len(WORDS), max_position_embeddings=32, **TINY)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    """A folder with a tiny vision transformer of random weights."""
    folder = tmp_path / "vit"
    torch.manual_seed(0)
    config = transformers.ViTConfig(image_size=16, patch_size=8, num_labels=7, **TINY)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    return folder


def write_examples(path: Path, column: str, values: list[object]) -> Path:
    labels = [row % 2 for row in range(len(values))]
    splits = ["train"] * (len(values) - 12) + ["meta"] * 6 + ["test"] * 6
    pq.write_table(pa.table({column: values, "given": labels, "label": labels, "split": splits}), path)
    return path


def make_dataset(path: Path, column: str) -> dict[str, object]:
    return {"uri": str(path), column: column, "label": "given", "split": {"column": "split", "value": "train"}}


@sqlite_alone
def test_a_sequence_classifier_is_trained_and_its_tokens_are_its_own(
    database: Database, settings: Settings, bert: Path, tmp_path: Path
) -> None:
    tails = [[WORDS[2 + row // 3**place % 3] for place in range(4)] for row in range(36)]  # no two alike
    texts: list[object] = [" ".join([("good", "bad")[row % 2], *tail]) for row, tail in enumerate(tails)]
    path = write_examples(tmp_path / "texts.parquet", "text", texts)
    document = make_document(
        path,
        dataset=make_dataset(path, "text"),
        model={"name": f"hf:{bert}"},
        training=TRAINING,
        evaluation={"arms": ["full"], "seeds": 1},
    )
    job_id = run_to_end(database, settings, document)
    assert read_rows(database, job_id)["weight"].null_count == 0
    manifest = read_result(database, job_id)[0].manifest
    assert manifest["method"]["facts"]["route"] == "ghost", "its layers are linear ones, embeddings and norms"
    assert manifest["method"]["model"]["name"] == f"hf:{bert}"
    first, again = (build_sequence_classifier(bert, 2, "hf:bert").state_dict() for _ in range(2))
    assert torch.equal(first["model.bert.embeddings.word_embeddings.weight"], again[
        "model.bert.embeddings.word_embeddings.weight"
    ])  # fmt: skip


@sqlite_alone
def test_an_image_classifier_gets_images_of_its_own_size_and_a_head_for_our_classes(
    database: Database, settings: Settings, vit: Path, tmp_path: Path
) -> None:
    images: list[object] = []
    for row in range(36):
        target = io.BytesIO()
        Image.new("RGB", (10, 12), (250 * (row % 2), row, 0)).save(target, format="PNG")
        images.append(target.getvalue())
    path = write_examples(tmp_path / "images.parquet", "image", images)
    document = make_document(
        path,
        dataset=make_dataset(path, "image"),
        model={"name": f"hf:{vit}"},
        training=TRAINING,
        evaluation=None,
        test=None,
    )
    assert read_rows(database, run_to_end(database, settings, document)).num_rows == 24
    form = read_image_form(vit, "hf:vit")
    assert (form.num_channels, form.side, form.mean.tolist()) == (3, 16, [0.5, 0.5, 0.5])


def refuse(folder: Path) -> str:
    with pytest.raises(ServiceError) as caught:
        check_folder(folder, "hf:model")
    assert caught.value.code == "bad_model"
    assert caught.value.param == "model.name"
    return caught.value.message


def test_a_folder_without_safetensors_is_refused(bert: Path) -> None:
    for weights in bert.glob("*.safetensors"):
        weights.rename(weights.with_name("pytorch_model.bin"))
    assert refuse(bert) == "model.name 'hf:model': the folder holds no safetensors weights."


def test_a_folder_with_code_of_its_own_is_refused(bert: Path) -> None:
    config = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "code.Model"}}))
    assert "needs code of its own to be run, which is never done" in refuse(bert)


def test_a_folder_without_a_configuration_is_refused(bert: Path) -> None:
    (bert / "config.json").write_text("{")
    assert "has no readable config.json" in refuse(bert)


def test_a_folder_without_a_tokenizer_is_refused(vit: Path) -> None:
    with pytest.raises(ServiceError, match="holds no tokenizer"):
        load_tokenizer(vit, "hf:vit")


def test_an_image_model_is_no_text_model(vit: Path) -> None:
    with pytest.raises(ServiceError, match="cannot be loaded as a classifier"):
        build_sequence_classifier(vit, 2, "hf:vit")
