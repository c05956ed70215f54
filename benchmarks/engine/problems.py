"""The networks of the benchmark and random data of their shape: the cost of a step does not depend on what it says."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Generator, Tensor, nn

from benchmarks.engine.setting import Setting
from sama_core import TensorExamples
from sama_core.tensors import move_inputs
from sama_core.types import Inputs, map_inputs

NUM_CLASSES = 10
NUM_META = 1024


@dataclass(frozen=True)
class EngineProblem:
    """A network, the shape of its data, and how much of it can be measured in a few minutes.

    Attributes:
        title: for the report.
        batch_size: of base and meta batches alike.
        num_rows: training examples.
        build_network: the network with fresh weights.
        build_inputs: random inputs of so many examples.
        steps: base steps per timing with a meta step after each.
        periods: periods of ten base steps per timing with a meta step after each tenth; 0 where ten steps are too
            many: the share of nine ordinary steps and one meta step is then put together from steps timed singly.
        main_optimizer: the arms beside the main ones are measured with it, and whole periods; None with every one.
        num_few_repeats: of the arms beside the main ones.
        num_training_steps: base steps before the first cosine is taken.
        num_probes: batches over which the median cosine is taken.
        is_small: the truth through ten base steps is looked at too, whose graph must fit into memory.
    """

    title: str
    batch_size: int
    num_rows: int
    build_network: Callable[[], nn.Module]
    build_inputs: Callable[[int, Generator], Inputs]
    steps: int
    periods: int
    main_optimizer: str | None
    num_few_repeats: int
    num_training_steps: int
    num_probes: int
    is_small: bool = False

    def count_periods(self, optimizer: str) -> int:
        """Return the whole periods per timing with this optimizer."""
        return self.periods if self.main_optimizer in (None, optimizer) else 0


def _build_mlp() -> nn.Module:
    layers: list[nn.Module] = []
    for width_in, width_out in ((784, 512), (512, 512)):
        layers += [nn.Linear(width_in, width_out), nn.ReLU(), nn.Dropout(0.1)]
    return nn.Sequential(*layers, nn.Linear(512, NUM_CLASSES))


def _build_resnet() -> nn.Module:
    from worker.models.convolutions import build_resnet18

    return build_resnet18((3, 32, 32), NUM_CLASSES)


def _build_bert(width: int, depth: int, num_heads: int) -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    from worker.models.pretrained import PretrainedClassifier

    config = BertConfig(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=num_heads,
        intermediate_size=4 * width,
        num_labels=NUM_CLASSES,
        # As the product loads it: the fused kernels have no forward derivative.
        attn_implementation="eager",
    )
    return PretrainedClassifier(BertForSequenceClassification(config))


def _draw_vectors(num_rows: int, generator: Generator) -> Tensor:
    return torch.randn(num_rows, 784, generator=generator)


def _draw_images(num_rows: int, generator: Generator) -> Tensor:
    return torch.randn(num_rows, 3, 32, 32, generator=generator)


def _draw_tokens(num_rows: int, generator: Generator) -> dict[str, Tensor]:
    tokens = torch.randint(1000, 30522, (num_rows, 64), generator=generator)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


PROBLEMS = {
    "mlp": EngineProblem(
        title="MLP 784-512-512-10, dropout 0.1, batch 128",
        batch_size=128,
        num_rows=8192,
        build_network=_build_mlp,
        build_inputs=_draw_vectors,
        steps=20,
        periods=2,
        main_optimizer=None,
        num_few_repeats=4,
        num_training_steps=50,
        num_probes=15,
        is_small=True,
    ),
    "bert": EngineProblem(
        title="BERT of 4 layers, 256 wide, dropout 0.1, batch 32 x 64 tokens",
        batch_size=32,
        num_rows=2048,
        build_network=lambda: _build_bert(256, 4, 4),
        build_inputs=_draw_tokens,
        steps=1,
        periods=1,
        main_optimizer="adamw",
        num_few_repeats=2,
        num_training_steps=20,
        num_probes=5,
    ),
    "resnet": EngineProblem(
        title="ResNet-18 with BatchNorm and CIFAR stem, 3x32x32, batch 64",
        batch_size=64,
        num_rows=2048,
        build_network=_build_resnet,
        build_inputs=_draw_images,
        steps=1,
        periods=0,
        main_optimizer="sgd",
        num_few_repeats=2,
        num_training_steps=10,
        num_probes=2,
    ),
    "bert-base": EngineProblem(
        title="BERT-base, dropout 0.1, batch 32 x 64 tokens",
        batch_size=32,
        num_rows=2048,
        build_network=lambda: _build_bert(768, 12, 12),
        build_inputs=_draw_tokens,
        steps=5,
        periods=1,
        main_optimizer="adamw",
        num_few_repeats=5,
        num_training_steps=12,
        num_probes=3,
    ),
}
CPU_PROBLEMS = ("mlp", "bert", "resnet")


def build_network(setting: Setting) -> nn.Module:
    """Return the network on the device, in training mode: the same weights at every call.

    Convolutions are channels-last in every arm, as our own loop makes them by itself.
    """
    torch.manual_seed(0)
    network = PROBLEMS[setting.problem].build_network().to(setting.device).train()
    if setting.problem == "resnet":
        network.to(memory_format=torch.channels_last)
    return network


@cache
def build_examples(problem: str, device: str, *, is_meta: bool) -> TensorExamples:
    """Return random training or trusted examples in the device's memory, the same ones at every call."""
    num_rows = NUM_META if is_meta else PROBLEMS[problem].num_rows
    generator = Generator().manual_seed(1 + is_meta)
    inputs = move_inputs(PROBLEMS[problem].build_inputs(num_rows, generator), torch.device(device))
    return TensorExamples(inputs, torch.randint(NUM_CLASSES, (num_rows,), generator=generator), NUM_CLASSES)


class Batches:
    """Batches of shuffled rows without end, as a handwritten loop draws them."""

    def __init__(self, examples: TensorExamples, batch_size: int, device: str) -> None:
        self.inputs, self.labels = examples.inputs, examples.labels.to(device)
        self.batch_size = batch_size
        self._generator = Generator().manual_seed(3)
        self._rows: list[Tensor] = []

    def draw(self) -> tuple[Inputs, Tensor]:
        """Return inputs and labels of the next batch."""
        if not self._rows:
            order = torch.randperm(len(self.labels), generator=self._generator).to(self.labels.device)
            self._rows = list(order.split(self.batch_size))
        rows = self._rows.pop()
        return map_inputs(self.inputs, lambda tensor: _pick(tensor, rows)), self.labels[rows]


def _pick(tensor: Tensor, rows: Tensor) -> Tensor:
    picked = tensor[rows]
    return picked.contiguous(memory_format=torch.channels_last) if picked.dim() == 4 else picked


def build_batches(setting: Setting, *, is_meta: bool = False) -> Batches:
    """Return the batches of the training or the trusted examples."""
    batch_size = PROBLEMS[setting.problem].batch_size
    return Batches(build_examples(setting.problem, setting.device, is_meta=is_meta), batch_size, setting.device)
