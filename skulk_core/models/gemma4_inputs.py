"""The input of its own that every layer of Gemma 4's small sizes has: made from the tokens, on every host alike."""

from typing import Any

import mlx.core as mx

from skulk_core.types import LayerRange

# Axes of a matrix, packed by quantisation or not, along which its inputs and its outputs lie.
_OUTPUTS, _INPUTS = 0, -1


class LayerInputs:
    """Makes the inputs of the layers ``held`` of mlx-lm's `Gemma4TextModel`.

    An input is ``(norm(project(e) / sqrt(H)) + table[token] * sqrt(P)) / sqrt(2)``, with ``e`` the scaled embedding
    (`Gemma4TextModel._project_per_layer_inputs`). One projection and one table hold all layers side by side.
    """

    def __init__(self, trunk: Any, held: LayerRange, num_layers: int) -> None:
        self._trunk, self._held, self._num_layers = trunk, held, num_layers
        self._first = 0  # the layer that the first part of projection and table belongs to

    def __call__(self, embedded: mx.array, tokens: mx.array) -> list[mx.array]:
        """Inputs ``[T, P]`` of the layers held, for ``tokens`` ``[T]`` with scaled embeddings ``[T, H]``."""
        trunk, size = self._trunk, self._trunk.hidden_size_per_layer_input
        projected = trunk.per_layer_model_projection(embedded) * trunk.per_layer_projection_scale
        by_layer = (len(tokens), -1, size)
        inputs = trunk.per_layer_projection_norm(projected.reshape(by_layer))
        by_token = trunk.embed_tokens_per_layer(tokens) * trunk.embed_tokens_per_layer_scale
        inputs = (inputs + by_token.reshape(by_layer)) * trunk.per_layer_input_scale
        flat = inputs.reshape(len(tokens), -1)
        parts = list(mx.split(flat, flat.shape[-1] // size, axis=-1))
        return parts[self._held.start - self._first : self._held.end - self._first]

    def modules(self) -> list[Any]:
        """The modules whose weights make the inputs, the embedding apart."""
        trunk = self._trunk
        return [trunk.embed_tokens_per_layer, trunk.per_layer_model_projection, trunk.per_layer_projection_norm]

    def narrow(self) -> None:
        """Leave of projection and table, in the model itself, what the layers held need.

        The table is the largest matrix of these models. Where a group of quantised columns belongs to two layers it
        stays whole.
        """
        table, projection, _ = self.modules()
        matrices = [(table, name, _INPUTS) for name in table.parameters()]
        matrices += [(projection, name, _OUTPUTS) for name in projection.parameters()]
        if any(module[name].shape[axis] % self._num_layers for module, name, axis in matrices):
            return
        for module, name, axis in matrices:
            part = module[name].shape[axis] // self._num_layers
            start, end = self._held.start * part, self._held.end * part
            matrix = module[name]
            # copied, or a slice would keep the whole
            module[name] = mx.contiguous(matrix[..., start:end] if axis == _INPUTS else matrix[start:end])
        self._first = self._held.start
