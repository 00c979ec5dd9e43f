"""What a bench receipt says of the circumstances: machine, model, head, prompts, settings. See `receipt.py`."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class SamplingRecord:
    """How tokens were chosen: the options of the same names."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: dict[str, float | None]
    seed: int
    accept: str


@dataclass(frozen=True)
class PromptsRecord:
    """The prompts: `name` is a set's or `file`, `sha256` of their texts, `tokens` the length of each as it was fed."""

    name: str
    sha256: str
    tokens: tuple[int, ...]
    chat_template: bool
    context: int | None


@dataclass(frozen=True)
class MachineRecord:
    """What it was measured on. `blas_threads` is None where nobody knows."""

    system: str
    processor: str
    cores: int
    memory_nbytes: int
    backend: str
    device: str
    blas: str
    blas_threads: int | None


@dataclass(frozen=True)
class ModelRecord:
    """The target. `name` is `demo`, OWNER/NAME, or the name of a folder or file; `sha` the commit on the Hub, or empty.

    `quantization` says how the weights are packed, or is empty.
    """

    name: str
    sha: str
    model_type: str
    dtype: str
    quantization: str
    nbytes: int
    num_layers: int
    hidden_size: int
    vocab_size: int


@dataclass(frozen=True)
class SidecarRecord:
    """The draft head. `sha256` is that of its file, empty where it has none of its own (a head in the checkpoint).

    `conventions` say how it was wired, by their names; empty in receipts of earlier versions, and where there are none.
    """

    name: str
    sha256: str
    layout: str
    precision: str
    conventions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StageRecord:
    """What one rank of several holds: layers `[start, end)`, and bytes of weights."""

    start: int
    end: int
    nbytes: int
