"""Networks by name: shapes, repeatable weights, training defaults, and the choice of `auto`."""

import pytest
import torch

from sama_core import CurationOptions
from service.jobs.document import JobDocument, parse_document
from worker.data.examples import InputShape
from worker.models.choice import choose_model
from worker.models.defaults import TRAINING_DEFAULTS, resolve_options
from worker.models.registry import MODEL_NAMES, count_parameters, create_builder

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
NUM_CLASSES = 3


def make_inputs(shape: InputShape, num_rows: int = 4) -> torch.Tensor | tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    if shape.kind == "text":
        ids = torch.randint(0, shape.sizes[0], (num_rows, 5), generator=generator)
        return ids, torch.rand(num_rows, 5, generator=generator)
    return torch.randn(num_rows, *shape.sizes, generator=generator)


SHAPES = [
    ("linear", InputShape("features", (7,))),
    ("linear", InputShape("image", (1, 8, 8))),
    ("mlp", InputShape("features", (7,))),
    ("mlp", InputShape("image", (3, 5, 4))),
    ("text", InputShape("text", (50,))),
    ("cnn", InputShape("image", (1, 8, 8))),
    ("cnn", InputShape("image", (3, 32, 20))),
    ("cnn", InputShape("image", (3, 3, 3))),
    ("resnet18", InputShape("image", (3, 16, 16))),
    ("resnet18", InputShape("image", (1, 96, 80))),
]


@pytest.mark.parametrize(("name", "shape"), SHAPES)
def test_every_network_gives_logits_and_learns_with_all_its_parameters(name: str, shape: InputShape) -> None:
    network = create_builder(name, shape, NUM_CLASSES).build(0)
    logits = network(make_inputs(shape))
    assert logits.shape == (4, NUM_CLASSES)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert count_parameters(network) == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", ["linear", "mlp", "text", "cnn"])
def test_examples_of_a_batch_do_not_mix(name: str) -> None:
    shape = next(shape for known, shape in SHAPES if known == name)
    network = create_builder(name, shape, NUM_CLASSES).build(0)
    inputs = make_inputs(shape)
    alone = tuple(part[:1] for part in inputs) if isinstance(inputs, tuple) else inputs[:1]
    assert torch.allclose(network(inputs)[:1], network(alone), atol=1e-6)


def test_weights_follow_from_the_seed_and_leave_the_global_generator_alone() -> None:
    builder = create_builder("mlp", InputShape("features", (4,)), NUM_CLASSES)
    torch.manual_seed(1)
    first = builder.build(0).state_dict()
    drawn = torch.rand(1)
    torch.manual_seed(2)
    again, other = builder.build(0).state_dict(), builder.build(1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["1.weight"], other["1.weight"])
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))


def make_document(**fields: object) -> JobDocument:
    base: dict[str, object] = {
        "dataset": {"uri": "x.csv", "features": ["a"], "label": "y"},
        "meta": {"fraction": 0.1},
    }
    return parse_document(base | fields)


TEXT = {"uri": "x.csv", "text": "t", "label": "y"}
IMAGE = {"uri": "x.csv", "image": "i", "label": "y"}


@pytest.mark.parametrize(
    ("dataset", "num_train", "device", "name", "because"),
    [
        (None, 10, CPU, "mlp", "rows of numbers and categories"),
        (TEXT, 10, CPU, "text", "texts"),
        (IMAGE, 50_000, CPU, "cnn", "50000 images"),
        (IMAGE, 50_000, CUDA, "resnet18", "there is a GPU"),
        (IMAGE, 500, CUDA, "cnn", "500 images"),
    ],
)
def test_auto_chooses_by_the_data_and_says_why(
    dataset: dict[str, object] | None, num_train: int, device: torch.device, name: str, because: str
) -> None:
    document = make_document(dataset=dataset) if dataset else make_document()
    choice = choose_model(document, num_train, device)
    assert choice.name == name
    assert because in choice.because


def test_a_named_model_is_taken() -> None:
    choice = choose_model(make_document(model={"name": "linear"}), 10, CPU)
    assert (choice.name, choice.because) == ("linear", "named in the document")


def test_every_model_has_training_defaults() -> None:
    assert set(TRAINING_DEFAULTS) == {*MODEL_NAMES, "hf"}


@pytest.mark.parametrize(("num_train", "epochs"), [(100, 40), (12_800, 20), (1_000_000, 10)])
def test_epochs_follow_from_the_data_within_bounds(num_train: int, epochs: int) -> None:
    options = resolve_options(make_document(), "mlp", num_train, judges_itself=False)
    assert options.epochs == epochs
    assert options.batch_size == min(128, num_train)


def test_what_the_document_says_is_kept_and_zero_is_a_value() -> None:
    training = {"epochs": 2, "batch_size": 9, "optimizer": "sgd", "lr": 0.5, "weight_decay": 0.0, "momentum": 0.0}
    method = {"name": "sama", "ema_decay": 0.0, "meta_lr": 0.3, "unroll_steps": 4, "learned": "logits"}
    options = resolve_options(make_document(training=training, method=method), "mlp", 100, judges_itself=False)
    assert options.to_json() | training | {
        "ema_decay": 0.0,
        "meta_lr": 0.3,
        "unroll_steps": 4,
        "learned": "logits",
    } == (options.to_json())


def test_what_is_left_open_is_the_methods_own_default() -> None:
    options, usual = resolve_options(make_document(), "linear", 100, judges_itself=False), CurationOptions()
    assert (options.meta_lr, options.ema_decay, options.momentum) == (usual.meta_lr, usual.ema_decay, usual.momentum)


def test_without_a_meta_set_a_batch_leaves_rows_to_judge_it_by() -> None:
    document = make_document(task="prune", meta={"self": True})
    assert resolve_options(document, "mlp", 50, judges_itself=True).batch_size == 25
