"""The gated delta rule over a pass of rows, and the state after any prefix of it.

Notation of Yang et al. 2024 (Gated Delta Networks), per head: incoming state ``S_0`` ``[Dv, Dk]``, decays
``g_t`` with cumulative products ``G_t``, keys ``k_t``, values ``v_t``, write gates ``beta_t``. The rule

    S_t = g_t S_{t-1} + d_t k_t^T        d_t = beta_t (v_t - g_t S_{t-1} k_t)        y_t = S_t q_t

unrolls to a unit lower triangular system for the writes ``d``:

    d_t + beta_t sum_{i<t} (G_t / G_i) (k_i . k_t) d_i = beta_t (v_t - G_t S_0 k_t)
    y_t = G_t S_0 q_t + sum_{i<=t} (G_t / G_i) (k_i . q_t) d_i

so a pass costs a number of array operations that does not grow with its width (up to a chunk; longer passes add a
few per chunk), and because ``d_t`` never depends on later rows, the state after ``n`` rows is one product of what
the pass recorded (`cache.recurrent.OuterProductWrites`).

Shapes: one sequence, ``Hk`` key heads, ``R`` value heads per key head, ``T`` rows. All arithmetic is float32.
"""

from functools import lru_cache

import mlx.core as mx

from skulk_core.cache.recurrent import OuterProductWrites
from skulk_core.numerics.elementwise import exp

# Rows solved as one triangular system. 64 keeps the [C, C] systems small against the [C, D] products at the head
# sizes in use; the recurrence between chunks is sequential.
CHUNK_ROWS = 64
# Blocks inverted by products of their nilpotent part: its powers stay small enough not to cancel badly.
_NILPOTENT_ROWS = 8


def gated_delta_rule(
    queries_keys: mx.array, values: mx.array, log_decay: mx.array, beta: mx.array, state: mx.array
) -> tuple[mx.array, OuterProductWrites]:
    """Outputs ``y`` ``[Hk, R, T, Dv]`` and the record of the pass.

    ``queries_keys`` ``[Hk, 1, 2 T, Dk]``: the T queries, then the T keys, already normalised and scaled; ``values``
    ``[Hk, R, T, Dv]``; ``log_decay`` (``log g_t``), ``beta`` ``[Hk, R, T]``; ``state`` ``[Hk, R, Dv, Dk]``.
    """
    rows = values.shape[-2]
    if rows == 1:
        return _one_row(queries_keys, values, log_decay, beta, state)
    if rows <= _NILPOTENT_ROWS:
        return _short_pass(queries_keys, values, log_decay, beta, state)
    return _chunked_pass(queries_keys, values, log_decay, beta, state)


def _one_row(
    queries_keys: mx.array, values: mx.array, log_decay: mx.array, beta: mx.array, state: mx.array
) -> tuple[mx.array, OuterProductWrites]:
    query, key = mx.split(queries_keys, 2, axis=-2)
    read, recalled = mx.split(exp(log_decay)[..., None] * (queries_keys @ state.swapaxes(-1, -2)), 2, axis=-2)
    writes = beta[..., None] * (values - recalled)
    outputs = read + (query * key).sum(axis=-1, keepdims=True) * writes
    return outputs, OuterProductWrites(state, log_decay, writes, key)


def _short_pass(
    queries_keys: mx.array, values: mx.array, log_decay: mx.array, beta: mx.array, state: mx.array
) -> tuple[mx.array, OuterProductWrites]:
    rows = values.shape[-2]
    keys = queries_keys[..., rows:, :]
    total = mx.cumsum(log_decay, axis=-1)
    # queries and keys take part in the same products: [..., 2 T, ...]
    at_row = mx.concatenate([total, total], axis=-1)[..., None]
    ratio = exp(at_row - total[..., None, :] + _looking_back(rows))
    from_state = exp(at_row) * (queries_keys @ state.swapaxes(-1, -2))
    within = ratio * (queries_keys @ keys.swapaxes(-1, -2))
    read, recalled = mx.split(from_state, 2, axis=-2)
    inclusive, strict = mx.split(within, 2, axis=-2)
    beta = beta[..., None]
    writes = _solve(beta * strict, beta * (values - recalled))
    return read + inclusive @ writes, OuterProductWrites(state, total, writes, keys)


def _chunked_pass(
    queries_keys: mx.array, values: mx.array, log_decay: mx.array, beta: mx.array, state: mx.array
) -> tuple[mx.array, OuterProductWrites]:
    rows = values.shape[-2]
    size = min(CHUNK_ROWS, 1 << (rows - 1).bit_length())
    chunks = -(-rows // size)
    padding = chunks * size - rows

    def split(x: mx.array) -> mx.array:
        # rows of zero keys and zero beta write nothing, rows of zero log-decay fade nothing
        if padding:
            x = mx.pad(x, [(0, 0), (0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 3))
        return x.reshape(*x.shape[:2], chunks, size, *x.shape[3:])

    queries, keys = mx.split(queries_keys, 2, axis=-2)
    q, k, v, beta = split(queries), split(keys), split(values), split(beta)[..., None]
    within = mx.cumsum(split(log_decay), axis=-1)
    inclusive, strict = _causal(size)
    decay = exp(within)[..., None]
    ratio = exp(within[..., None] - within[..., None, :] + inclusive)
    keys_t = k.swapaxes(-1, -2)
    inverse = _unit_lower_inverse(beta * (k @ keys_t) * ratio * strict)
    # writes of a chunk = fresh - stale @ S^T, with S the state it starts from
    fresh = inverse @ (beta * v)
    stale = inverse @ (beta * decay * k)
    fade = ratio[..., -1, :, None]
    written = k * fade if fade.shape[1] == 1 else fade * k
    last = decay[..., -1:, :]

    starts, writes = [], []
    for c in range(chunks):
        starts.append(state)
        wrote = fresh[:, :, c] - stale[:, :, c] @ state.swapaxes(-1, -2)
        writes.append(wrote)
        state = last[:, :, c] * state + wrote.swapaxes(-1, -2) @ written[:, :, c]
    d = mx.stack(writes, axis=2)
    outputs = (decay * q) @ mx.stack(starts, axis=2).swapaxes(-1, -2) + ((q @ keys_t) * ratio) @ d

    def join(x: mx.array) -> mx.array:
        return x.reshape(*x.shape[:2], chunks * size, *x.shape[4:])[:, :, :rows]

    record = OuterProductWrites(starts[0], mx.cumsum(log_decay, axis=-1), join(d), keys, final=state)
    return join(outputs), record


# Constants of a width: not waited for, where a text meets a width for the first time.


@lru_cache(maxsize=16)
def _causal(num_rows: int) -> tuple[mx.array, mx.array]:
    """(0 where i <= t else -inf, 1 where i < t else 0), both ``[T, T]``."""
    rows = mx.arange(num_rows)
    inclusive = mx.where(rows[None, :] <= rows[:, None], mx.array(0.0), mx.array(-mx.inf))
    strict = (rows[None, :] < rows[:, None]).astype(mx.float32)
    mx.async_eval(inclusive, strict)
    return inclusive, strict


@lru_cache(maxsize=16)
def _looking_back(num_rows: int) -> mx.array:
    """0 where row t may see row i, else -inf, ``[2 T, T]``: for the queries i <= t, for the keys i < t."""
    rows = mx.arange(num_rows)
    seen = mx.concatenate([rows[None, :] <= rows[:, None], rows[None, :] < rows[:, None]])
    mask = mx.where(seen, mx.array(0.0), mx.array(-mx.inf))
    mx.async_eval(mask)
    return mask


@lru_cache(maxsize=16)
def _identity(num_rows: int) -> mx.array:
    identity = mx.eye(num_rows)
    mx.async_eval(identity)
    return identity


def _solve(lower: mx.array, right: mx.array) -> mx.array:
    """``(I + lower)^-1 right`` for a strictly lower matrix of at most ``_NILPOTENT_ROWS`` rows."""
    if lower.shape[-1] > 2 and mx.default_device() == mx.cpu:
        return _unit_lower_inverse(lower) @ right
    # (I + L)^-1 = ... (I + L^4)(I + L^2)(I - L), because L^T = 0
    solution, power, exponent = right - lower @ right, lower, 2
    while exponent < lower.shape[-1]:
        power = power @ power
        solution = solution + power @ solution
        exponent *= 2
    return solution


def _unit_lower_inverse(lower: mx.array) -> mx.array:
    """``(I + lower)^-1`` of strictly lower ``[..., T, T]``."""
    if mx.default_device() == mx.cpu:
        return mx.linalg.tri_inv(lower + _identity(lower.shape[-1]))
    return _inverse_by_halves(lower)


def _inverse_by_halves(lower: mx.array) -> mx.array:
    """The same for T a power of two, in products alone: MLX has no triangular inverse on a GPU."""
    rows = lower.shape[-1]
    if rows <= _NILPOTENT_ROWS:
        return _solve(lower, mx.broadcast_to(mx.eye(rows), lower.shape))
    half = rows // 2
    above, below = _inverse_by_halves(mx.stack([lower[..., :half, :half], lower[..., half:, half:]]))
    corner = -(below @ (lower[..., half:, :half] @ above))
    top = mx.concatenate([above, mx.zeros_like(above)], axis=-1)
    return mx.concatenate([top, mx.concatenate([corner, below], axis=-1)], axis=-2)
