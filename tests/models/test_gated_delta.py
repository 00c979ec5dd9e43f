"""The closed form of the gated delta rule against mlx-lm's recurrence, row by row."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.gated_delta import gated_delta_ops
from tiny_models import assert_close

from skulk_core.cache.recurrent import OuterProductWrites
from skulk_core.models import gated_delta
from skulk_core.models.gated_delta import CHUNK_ROWS, gated_delta_rule

KEY_HEADS, VALUE_HEADS, KEY_DIMS, VALUE_DIMS = 2, 4, 16, 8
ROWS = 3000


@dataclass(frozen=True)
class Inputs:
    """``q``, ``k`` ``[T, Hk, Dk]``, ``v`` ``[T, Hv, Dv]``, ``log_decay``, ``beta`` ``[T, Hv]``."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    log_decay: np.ndarray
    beta: np.ndarray

    def __len__(self) -> int:
        return len(self.q)

    def __getitem__(self, rows: slice) -> "Inputs":
        return Inputs(self.q[rows], self.k[rows], self.v[rows], self.log_decay[rows], self.beta[rows])


def typical(rows: int, seed: int) -> Inputs:
    """Unit keys in all directions, gates and decays in all strengths."""
    rng = np.random.default_rng(seed)

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    return Inputs(
        unit(rng.standard_normal((rows, KEY_HEADS, KEY_DIMS))) * KEY_DIMS**-0.5,
        unit(rng.standard_normal((rows, KEY_HEADS, KEY_DIMS))),
        rng.standard_normal((rows, VALUE_HEADS, VALUE_DIMS)),
        -np.exp(rng.uniform(-8.0, 2.0, (rows, VALUE_HEADS))),
        rng.uniform(0.0, 1.0, (rows, VALUE_HEADS)),
    )


def adversarial(kind: str, rows: int) -> Inputs:
    """Inputs that stress the triangular system: rows that depend on all before them, or on none."""
    x = typical(rows, seed=5)
    same = np.broadcast_to(x.k[:1], x.k.shape)
    almost_one = np.full_like(x.beta, 1.0 - 1e-6)
    kept = np.full_like(x.log_decay, -1e-7)
    rng = np.random.default_rng(6)
    match kind:
        case "one key, all written, nothing fades":
            return Inputs(x.q, same, x.v, kept, almost_one)
        case "one key with both signs":
            return Inputs(x.q, same * rng.choice([-1.0, 1.0], (rows, 1, 1)), x.v, kept, almost_one)
        case "a few keys, nothing fades":
            return Inputs(x.q, x.k[rng.integers(0, min(3, rows), rows)], x.v, kept, almost_one)
        case "everything fades at once":
            return Inputs(x.q, x.k, x.v, np.full_like(x.log_decay, -60.0), x.beta)
        case "everything fades at once, beyond the smallest float":
            return Inputs(x.q, x.k, x.v, np.full_like(x.log_decay, -1e4), x.beta)
        case "rows that erase all among rows that keep all":
            mixed = np.where(rng.random(x.log_decay.shape) < 0.1, -300.0, -1e-3)
            return Inputs(x.q, same, x.v, mixed, almost_one)
        case _ if kind == NOTHING:
            return Inputs(x.q, x.k, x.v, x.log_decay, np.zeros_like(x.beta))
    raise AssertionError(kind)


NOTHING = "nothing is written"
KINDS = (
    "one key, all written, nothing fades",
    "one key with both signs",
    "a few keys, nothing fades",
    "everything fades at once",
    "everything fades at once, beyond the smallest float",
    "rows that erase all among rows that keep all",
    NOTHING,
)


def by_rule(x: Inputs, state: mx.array) -> tuple[mx.array, OuterProductWrites]:
    """Outputs ``[T, Hv, Dv]`` of the closed form and its record, from ``state`` ``[Hk, R, Dv, Dk]``."""
    rows, repeats = len(x), VALUE_HEADS // KEY_HEADS
    queries_keys = np.concatenate([x.q, x.k]).transpose(1, 0, 2)[:, None]
    values = x.v.transpose(1, 0, 2).reshape(KEY_HEADS, repeats, rows, VALUE_DIMS)
    gates = [gate.T.reshape(KEY_HEADS, repeats, rows) for gate in (x.log_decay, x.beta)]
    inputs = [mx.array(array.astype(np.float32)) for array in (queries_keys, values, *gates)]
    outputs, record = gated_delta_rule(*inputs, state)
    return outputs.reshape(VALUE_HEADS, rows, VALUE_DIMS).swapaxes(0, 1), record


def by_steps(x: Inputs, state: mx.array) -> tuple[mx.array, mx.array]:
    """Outputs and last state of mlx-lm's loop over rows."""
    q, k, v, g, beta = (
        mx.array(array.astype(np.float32))[None] for array in (x.q, x.k, x.v, np.exp(x.log_decay), x.beta)
    )
    outputs, last = gated_delta_ops(q, k, v, g, beta, state.reshape(1, VALUE_HEADS, VALUE_DIMS, KEY_DIMS))
    mx.eval(outputs, last)
    return outputs[0], last.reshape(state.shape)


def no_state() -> mx.array:
    return mx.zeros((KEY_HEADS, VALUE_HEADS // KEY_HEADS, VALUE_DIMS, KEY_DIMS), mx.float32)


def some_state(seed: int = 9) -> mx.array:
    return mx.array(np.random.default_rng(seed).standard_normal(no_state().shape).astype(np.float32))


def in_chunks(x: Inputs, seed: int) -> tuple[mx.array, mx.array]:
    """`by_rule` in passes of 1 to 200 rows, each from the state of the one before."""
    draw, state, outputs, start = random.Random(seed), no_state(), [], 0
    while start < len(x):
        width = min(draw.choice([1, 2, 3, 8, 9, 17, 63, 64, 65, draw.randint(1, 200)]), len(x) - start)
        out, record = by_rule(x[start : start + width], state)
        state = record.state_after(width)
        mx.eval(out, state)
        outputs.append(out)
        start += width
    return mx.concatenate(outputs), state


@pytest.mark.parametrize("seed", [0, 1])
def test_a_long_text_gives_what_the_recurrence_gives(seed: int) -> None:
    """Otherwise hybrid models decode another text than mlx-lm, the further in the more."""
    x = typical(ROWS, seed)
    outputs, state = in_chunks(x, seed)
    expected, last = by_steps(x, no_state())
    assert_close(outputs, expected, 1e-5)
    assert_close(state, last, 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_no_input_makes_the_closed_form_lose_digits(kind: str) -> None:
    """Otherwise a repetitive text, where keys are alike, drifts or turns into NaN."""
    x = adversarial(kind, 600)
    outputs, state = in_chunks(x, seed=3)
    expected, last = by_steps(x, no_state())
    if kind == NOTHING:
        assert not np.array(outputs).any()
        return
    assert_close(outputs, expected, 2e-5)
    assert_close(state, last, 2e-5)


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 9, 33, 64, 65, 130])
def test_the_state_after_every_prefix_is_the_recurrence_s(width: int) -> None:
    """Otherwise committing fewer rows than were fed leaves a state that no text has."""
    # decays are differences of a running sum, which costs digits as the sum grows; verify passes are short
    tolerance = 1e-5 if width <= 8 else 1e-4
    for x in [typical(width, seed=width)] + [adversarial(kind, width) for kind in KINDS if kind != NOTHING]:
        _, record = by_rule(x, some_state())
        state = some_state()
        for row in range(width):
            _, state = by_steps(x[row : row + 1], state)
            assert_close(record.state_after(row + 1), state, tolerance)


@pytest.fixture
def count_operations(tmp_path: Path) -> Callable[[int], int]:
    """Array operations in the graph of a pass of a width: outputs, and the state after all rows and after the first."""

    def count(width: int) -> int:
        outputs, record = by_rule(typical(width, seed=0), some_state())
        file = tmp_path / "graph.dot"
        mx.export_to_dot(str(file), outputs, record.state_after(width), record.state_after(1))
        # primitives are the rectangles of MLX's picture of a graph
        return file.read_text(encoding="utf-8").count("shape=rectangle")

    return count


def test_operations_do_not_grow_with_the_width_of_a_verify_pass(count_operations: Callable[[int], int]) -> None:
    """Otherwise deep drafts cost more than they bring: on small models the number of operations is the cost."""
    counts = {width: count_operations(width) for width in range(1, 9)}
    assert counts[1] <= counts[2]
    assert counts[3] == counts[4] == counts[5] == counts[6] == counts[7] == counts[8] <= counts[2] + 3


def test_operations_of_a_chunk_do_not_depend_on_how_full_it_is(count_operations: Callable[[int], int]) -> None:
    """Otherwise prefill would go through a prompt row by row."""
    counts = {width: count_operations(width) for width in (33, 40, 63, CHUNK_ROWS)}
    assert counts[33] == counts[40] == counts[63]
    # a full chunk needs no padding
    assert counts[CHUNK_ROWS] <= counts[63]


def test_operations_of_a_prefill_grow_by_a_few_per_chunk(count_operations: Callable[[int], int]) -> None:
    """Otherwise long prompts take minutes on machines without the Metal kernel."""
    counts = [count_operations(CHUNK_ROWS * chunks) for chunks in (2, 3, 4, 8)]
    per_chunk = counts[1] - counts[0]
    assert counts[2] - counts[1] == per_chunk
    assert counts[3] - counts[2] == 4 * per_chunk
    assert per_chunk < CHUNK_ROWS / 2


@pytest.mark.parametrize("rows", [1, 2, 8, 16, 64])
@pytest.mark.parametrize("kind", ["drawn", "all ones"])
def test_the_inverse_by_products_is_the_library_s(rows: int, kind: str) -> None:
    """On a GPU there is only this one, and all ones is the case in which a plain power series cancels to nothing."""
    full = mx.array(np.random.default_rng(rows).uniform(-1, 1, (2, rows, rows)).astype(np.float32))
    lower = mx.tril(mx.ones_like(full) if kind == "all ones" else 0.3 * full, -1)
    expected = mx.linalg.tri_inv(lower + mx.eye(rows), stream=mx.cpu)
    assert_close(gated_delta._inverse_by_halves(lower), expected, 1e-5)
