"""The ghost route equals automatic differentiation: layer by layer, and for whole networks."""

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sama_core.batch import split_batch
from sama_core.errors import NetworkError
from sama_core.hypergradient.routes.ghost import GhostRoute, explain_refusal, retained_bytes, verify
from sama_core.hypergradient.routes.ghost.layers import find_kind
from sama_core.precision import Precision
from sama_core.randomness import isolated_randomness
from tests.sama_core.ghost_scene import CPU, Classes, Reader, Scene, build_scene, kept_calls, relative_error

SIZE = 6


def normal(*shape: int) -> Tensor:
    return torch.randn(SIZE, *shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def positions(length: int = 7, size: int = SIZE) -> Tensor:
    return torch.randint(0, 5, (size, length), generator=torch.Generator().manual_seed(3))


class Bags(nn.Module):
    """Bags of a flat list of positions, by offsets."""

    def __init__(self, *, include_last_offset: bool) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(5, 3, mode="mean", include_last_offset=include_last_offset)

    def forward(self, inputs: Tensor) -> Tensor:
        num_bags = len(inputs) + int(self.bag.include_last_offset)
        return self.bag(inputs.flatten(), offsets=torch.arange(num_bags) * inputs.shape[1])


class Positions(nn.Module):
    """Words and positions: one call of the second table serves every example."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(5, 3, padding_idx=0), nn.Embedding(7, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.words(inputs) + self.places(torch.arange(inputs.shape[1]).unsqueeze(0))


class Tied(nn.Module):
    """A table that is read, then multiplied with; the same layer called twice; padding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.mix = nn.Embedding(5, 4, padding_idx=1), nn.Linear(4, 4)
        self.output = nn.Linear(4, 5)
        self.output.weight = self.words.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.output(torch.tanh(self.mix(torch.tanh(self.mix(self.words(inputs))))))


class Folded(nn.Module):
    """Puts the steps of each example into rows of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])


class Checkpointed(nn.Module):
    """Forgets its activations and computes them again."""

    def __init__(self, *, use_reentrant: bool) -> None:
        super().__init__()
        self.first, self.rest = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
        self.use_reentrant = use_reentrant

    def forward(self, inputs: Tensor) -> Tensor:
        return checkpoint(self.rest, self.first(inputs), use_reentrant=self.use_reentrant)


def norm_by_statistics() -> nn.Module:
    norm = nn.BatchNorm2d(3)
    norm(torch.randn(8, 3, 5, 4))
    return norm.eval()


def freeze(layer: nn.Module, *names: str) -> nn.Module:
    for name in names:
        layer.get_parameter(name).requires_grad_(False)
    return layer


LAYERS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "linear": (lambda: nn.Linear(4, 3), normal(4)),
    "linear-no-bias": (lambda: nn.Linear(4, 3, bias=False), normal(4)),
    "linear-positions": (lambda: nn.Linear(4, 3), normal(2, 4)),
    "linear-many-positions": (lambda: nn.Linear(4, 3), normal(5, 3, 4)),
    "linear-in-place": (lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 3)), normal(4)),
    "linear-frozen-weight": (lambda: freeze(nn.Linear(4, 3), "weight"), normal(2, 4)),
    "linear-frozen-bias": (lambda: freeze(nn.Linear(4, 3), "bias"), normal(2, 4)),
    "linear-folded": (Folded, normal(2, 4)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), normal(4, 9)),
    "conv2d": (lambda: nn.Conv2d(2, 4, 3), normal(2, 6, 5)),
    "conv2d-options": (
        lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
        normal(4, 7, 6),
    ),
    "conv2d-same": (lambda: nn.Conv2d(2, 3, 3, padding="same", bias=False), normal(2, 5, 5)),
    "conv2d-channels-last": (
        lambda: nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last),
        normal(3, 6, 5).to(memory_format=torch.channels_last),
    ),
    "conv2d-frozen-weight": (lambda: freeze(nn.Conv2d(2, 4, 3), "weight"), normal(2, 6, 5)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), normal(2, 3, 4, 3)),
    "embedding": (lambda: nn.Embedding(5, 3), positions()),
    "embedding-padding": (lambda: nn.Embedding(5, 3, padding_idx=2), positions()),
    "embedding-one-call-for-all": (Positions, positions()),
    "bag-sum": (lambda: nn.EmbeddingBag(5, 3, mode="sum"), positions()),
    "bag-mean": (lambda: nn.EmbeddingBag(5, 3, mode="mean", padding_idx=1), positions()),
    "bag-offsets": (lambda: Bags(include_last_offset=False), positions()),
    "bag-last-offset": (lambda: Bags(include_last_offset=True), positions()),
    "layer-norm": (lambda: nn.LayerNorm(4), normal(3, 4)),
    "layer-norm-wide": (lambda: nn.LayerNorm((3, 4)), normal(3, 4)),
    "layer-norm-frozen-weight": (lambda: freeze(nn.LayerNorm(4), "weight"), normal(3, 4)),
    "group-norm": (lambda: nn.GroupNorm(2, 4), normal(4, 3, 2)),
    "group-norm-flat": (lambda: nn.GroupNorm(2, 4), normal(4)),
    "rms-norm": (lambda: nn.RMSNorm(4), normal(3, 4)),
    "rms-norm-eps": (lambda: nn.RMSNorm((3, 4), eps=0.1), normal(2, 3, 4)),
    "batch-norm-evaluating": (norm_by_statistics, normal(3, 4, 4)),
    "tied": (Tied, positions()),
    "dropout": (lambda: nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.4), nn.LayerNorm(8), nn.Linear(8, 3)), normal(4)),
    "checkpoint": (lambda: Checkpointed(use_reentrant=False), normal(4)),
    "checkpoint-reentrant": (lambda: Checkpointed(use_reentrant=True), normal(4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_exact(name: str) -> None:
    build, inputs = LAYERS[name]
    scene = build_scene(Reader(build()).double(), inputs)
    assert explain_refusal(scene.problem) is None
    if name == "checkpoint-reentrant":  # It cannot be differentiated but by a backward pass.
        plain = build_scene(Reader(Checkpointed(use_reentrant=False)).double(), inputs)
        plain.problem.network.load_state_dict(scene.problem.network.state_dict())
        truth = plain.differentiate_plainly(scene.draw_direction())
        route = GhostRoute()
        (found,) = scene.differentiate(route, [scene.record(route)], scene.draw_direction())
    else:
        found, truth = scene.measure()
    assert found.shape == (SIZE,)
    assert relative_error(found, truth) < 1e-10
    with isolated_randomness(CPU):
        assert verify(scene.problem, scene.batch, scene.evidence) is None


def test_weights_within_a_bag_are_exact() -> None:
    class Weighed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag, self.reader = nn.EmbeddingBag(5, 3, mode="sum"), Reader(nn.Linear(3, 3))

        def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
            return self.reader(self.bag(inputs[0], per_sample_weights=inputs[1]))

    found, truth = build_scene(Weighed().double(), (positions(), normal(7))).measure()
    assert relative_error(found, truth) < 1e-10


def bert(**options: object) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    config = transformers.BertConfig(vocab_size=11, max_position_embeddings=9, num_labels=2, **sizes, **options)
    return transformers.BertForSequenceClassification(config)


def gpt2() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=11, n_positions=9, n_embd=8, n_layer=2, n_head=2, pad_token_id=0)
    return transformers.GPT2ForSequenceClassification(config)


def distilbert() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.DistilBertConfig(
        vocab_size=11, max_position_embeddings=9, dim=8, n_layers=2, n_heads=2, hidden_dim=12
    )
    return transformers.DistilBertForSequenceClassification(config)


def llama() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=11,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=0,
        num_labels=2,
    )
    return transformers.LlamaForSequenceClassification(config)


@pytest.mark.parametrize(
    "build",
    [bert, lambda: bert(attn_implementation="eager"), gpt2, distilbert, llama],
    ids=["bert", "bert-eager", "gpt2", "distilbert", "llama"],
)
def test_a_transformer_with_dropout_is_exact(build: Callable[[], nn.Module]) -> None:
    model = build()
    scene = build_scene(Classes(model.double().train()), build_words())
    found, truth = scene.measure()
    # The norms of Llama compute in single precision whatever they are given, backward too.
    assert relative_error(found, truth) < (1e-6 if build is llama else 1e-10)
    with isolated_randomness(CPU):
        assert verify(scene.problem, scene.batch, scene.evidence) is None


def build_words() -> dict[str, Tensor]:
    words = torch.randint(1, 11, (SIZE, 9), generator=torch.Generator().manual_seed(4))
    mask = (torch.arange(9) < torch.tensor([9, 5, 7, 9, 2, 3]).unsqueeze(1)).long()
    return {"input_ids": words * mask, "attention_mask": mask}


def test_dropout_masks_matter_in_the_transformer_test() -> None:
    model = bert()
    scene = build_scene(Classes(model.double().train()), build_words())
    other = Scene(scene.problem, split_batch(scene.batch, 1)[0])
    direction = scene.draw_direction()
    assert relative_error(scene.differentiate_plainly(direction), other.differentiate_plainly(direction)) > 1e-3


def build_small() -> nn.Module:
    return Reader(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3)).double()


def test_pieces_of_a_step_are_exact_under_a_loss_scale() -> None:
    scene, route = build_scene(build_small(), normal(4)), GhostRoute()
    direction = scene.draw_direction()
    parts = split_batch(scene.batch, 2)
    pieces = [scene.record(route, num_examples=SIZE, scale=1024.0, batch=part) for part in parts]
    found = scene.differentiate(route, pieces, direction)
    for part, s in zip(parts, found, strict=True):
        assert relative_error(s, scene.differentiate_plainly(direction, part)) < 1e-10


def test_the_derivatives_are_those_before_the_step() -> None:
    scene, route = build_scene(build_small(), normal(4)), GhostRoute()
    direction = scene.draw_direction()
    truth = scene.differentiate_plainly(direction)
    optimizer = torch.optim.SGD(scene.problem.network.parameters(), lr=0.5)
    piece = scene.record(route)
    torch.nn.utils.clip_grad_norm_(scene.problem.network.parameters(), 0.1)
    optimizer.step()
    (found,) = scene.differentiate(route, [piece], direction)
    assert relative_error(found, truth) < 1e-10


def test_a_parameter_without_a_direction_counts_for_nothing() -> None:
    scene, route = build_scene(build_small(), normal(4)), GhostRoute()
    for kept in scene.problem.params:
        direction = {name: v if name == kept else 0.0 * v for name, v in scene.draw_direction().items()}
        (found,) = scene.differentiate(route, [scene.record(route)], {kept: direction[kept]})
        assert relative_error(found, scene.differentiate_plainly(direction)) < 1e-10
    (nothing,) = scene.differentiate(route, [scene.record(route)], {})
    assert nothing.tolist() == [0.0] * SIZE


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_autocast_agrees_with_full_precision(name: str) -> None:
    precision = Precision(name, CPU)  # type: ignore[arg-type]
    model = bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    scene = build_scene(Classes(model), build_words(), precision=precision)
    route, direction = GhostRoute(), {key: 1e-7 * v for key, v in scene.draw_direction().items()}
    (found,) = scene.differentiate(route, [scene.record(route, scale=128.0)], direction)
    scene.problem.precision = Precision("float32", CPU)
    truth = scene.differentiate_plainly(direction)
    assert found.dtype == torch.float32
    assert torch.cosine_similarity(found, truth, dim=0) > 0.99
    assert relative_error(found, truth) < 0.1


def test_a_network_in_half_precision_throughout() -> None:
    scene = build_scene(build_small().bfloat16(), normal(4).bfloat16())
    found, truth = scene.measure()
    assert torch.cosine_similarity(found, truth.float(), dim=0) > 0.99


def test_a_recording_is_freed_once_used() -> None:
    scene, route = build_scene(build_small(), normal(4)), GhostRoute()
    piece = scene.record(route)
    kept = [weakref.ref(tensor) for call in kept_calls(piece).calls for tensor in call.list_tensors()]
    inputs = id(scene.batch.inputs)
    assert len(kept) == 4
    scene.differentiate(route, [piece], scene.draw_direction())
    gc.collect()
    assert {id(tensor()) for tensor in kept if tensor() is not None} == {inputs}
    assert retained_bytes(kept_calls(piece)) == 0


def test_what_no_gradient_reaches_is_not_kept() -> None:
    scene, route = build_scene(build_small(), normal(4)), GhostRoute()
    with isolated_randomness(CPU), route.record(scene.problem) as recording:
        scene.problem.evaluate(scene.problem.params, {}, scene.batch)
    assert recording.calls == []
    with isolated_randomness(CPU), torch.no_grad(), route.record(scene.problem) as recording:
        scene.problem.evaluate(scene.problem.params, {}, scene.batch)
    assert recording.calls == []


def test_retained_bytes_count_each_storage_once() -> None:
    scene = build_scene(build_small(), normal(4))
    recording = kept_calls(scene.record(GhostRoute()))
    assert retained_bytes(recording) == SIZE * 8 * (4 + 8 + 8 + 3)


def test_the_gradients_of_normalisation_are_kept_instead_of_their_inputs() -> None:
    scene = build_scene(Reader(nn.LayerNorm(4)).double(), normal(50, 4))
    assert retained_bytes(kept_calls(scene.record(GhostRoute()))) == SIZE * 8 * (4 + 4)


def test_a_pass_is_the_same_with_and_without_a_recording() -> None:
    model = bert()
    scene = build_scene(Classes(model.train()), build_words())
    network = scene.problem.network
    scene.record(GhostRoute())
    recorded = [p.grad for p in network.parameters()]
    network.zero_grad()
    with isolated_randomness(CPU):
        losses = scene.problem.evaluate(scene.problem.params, {}, scene.batch)
        (scene.problem.weigh(scene.evidence).detach().float() * losses).mean().backward()
    for p, before in zip(network.parameters(), recorded, strict=True):
        torch.testing.assert_close(p.grad, before, rtol=1e-4, atol=1e-6)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_an_input_edited_in_place_is_noticed() -> None:
    scene, route = build_scene(build_small(), normal(4)), GhostRoute()
    piece = scene.record(route)
    assert isinstance(scene.batch.inputs, Tensor)
    scene.batch.inputs.add_(1.0)
    with pytest.raises(NetworkError, match=r"layer 'layers\.0' \(Linear\): its input was edited in place"):
        scene.differentiate(route, [piece], scene.draw_direction())


def test_a_second_backward_pass_is_refused() -> None:
    scene, route = build_scene(build_small(), normal(4)), GhostRoute()
    with isolated_randomness(CPU), route.record(scene.problem):
        loss = scene.problem.evaluate(scene.problem.params, {}, scene.batch).mean()
        loss.backward(retain_graph=True)
        with pytest.raises(NetworkError, match="a second backward pass while one pass is recorded; wanted one"):
            loss.backward()


def test_a_later_backward_pass_changes_nothing() -> None:
    scene, route = build_scene(build_small(), normal(4)), GhostRoute()
    direction = scene.draw_direction()
    with isolated_randomness(CPU), route.record(scene.problem) as recording:
        losses = scene.problem.evaluate(scene.problem.params, {}, scene.batch)
        losses.sum().backward(retain_graph=True)
    losses.square().sum().backward()
    with torch.no_grad():
        found = recording.differentiate(direction)
    assert relative_error(found, scene.differentiate_plainly(direction)) < 1e-10


@pytest.mark.parametrize(
    "layer", [nn.LayerNorm(6), nn.GroupNorm(2, 4), nn.BatchNorm2d(4).eval()], ids=lambda m: type(m).__name__
)
def test_a_scale_answers_the_same_with_and_without_its_gradients(layer: nn.Module) -> None:
    """Both ways to <grad l, v> of a kind: the gradients of each row, and its output under a direction."""
    kind = find_kind(layer.double())
    assert kind is not None
    generator = torch.Generator().manual_seed(0)
    inputs, delta = (torch.randn(3, 4, 5, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    weight, bias = (torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64) for _ in range(2))
    kept = kind.keep(layer, (inputs,), {})
    gradients = kind.condense(layer, kept, delta, {"weight": "w", "bias": "b"})
    assert gradients is not None
    by_gradients = gradients["weight"].flatten(1) @ weight.flatten() + gradients["bias"].flatten(1) @ bias.flatten()
    by_response = (delta * kind.respond(layer, kept, weight, bias)).flatten(1).sum(1)
    torch.testing.assert_close(by_response, by_gradients, rtol=1e-10, atol=1e-12)
