"""A value that means nothing is refused by the name of its option, before a model is loaded where that can be."""

import math

import mlx.core as mx
import pytest

from skulk_core.errors import OptionError
from skulk_core.sampling.settings import AcceptRule, SamplingSettings
from skulk_core.sampling.stochastic import make_sampler

NAN, INF = math.nan, math.inf
REFUSED = {
    "temperature": [-0.1, NAN, INF, 1e-30, 1e30],
    "top_p": [0.0, -1.0, 1.01, NAN, INF],
    "top_k": [-1],
    "min_p": [-0.01, 1.01, NAN],
    "repetition_penalty": [0.0, -1.0, NAN, INF, 1e-30],
    "presence_penalty": [NAN, INF, -INF, 1e30],
    "frequency_penalty": [NAN, INF, -INF, -1e30],
    "seed": [-1, 2**64, 10**400],
    "accept": ["both"],
    "logit_bias": [((-1, 1.0),), ((2**31, 1.0),), ((3, NAN),), ((3, INF),), ((3, 1e30),)],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_a_bad_value_names_its_option(name: str, value: object) -> None:
    with pytest.raises(OptionError) as caught:
        SamplingSettings(**{name: value})
    assert caught.value.option == "--" + name.replace("_", "-")
    assert str(caught.value.value)


def test_every_option_has_a_bad_value() -> None:
    assert set(REFUSED) == set(SamplingSettings.__dataclass_fields__)


def test_a_rule_may_be_a_word() -> None:
    """What a command line hands over is the same as the rule itself."""
    words = SamplingSettings(temperature=1.0, accept="token")  # type: ignore[arg-type]
    assert make_sampler(words)._rule is make_sampler(SamplingSettings(temperature=1.0, accept=AcceptRule.TOKEN))._rule
    assert make_sampler(words)._rule is not make_sampler(SamplingSettings(temperature=1.0))._rule


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_bias_beyond_the_vocabulary_is_refused(temperature: float) -> None:
    """MLX would write it to some other token or nowhere, in silence."""
    sampler = make_sampler(SamplingSettings(temperature=temperature, logit_bias=((8, 1.0), (9, -1.0))))
    assert sampler.start([1], 10).num_tokens == 1
    with pytest.raises(OptionError, match=r"--logit-bias 9=-1.0: .* 8") as caught:
        sampler.start([1], 9)
    assert caught.value.option == "--logit-bias"


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_something_must_be_left_to_choose(temperature: float) -> None:
    bans = tuple((token, -INF) for token in range(4))
    with pytest.raises(OptionError, match="banned"):
        make_sampler(SamplingSettings(temperature=temperature, logit_bias=bans)).start([0], 4)
    sampler = make_sampler(SamplingSettings(temperature=temperature, logit_bias=bans))
    chosen = sampler.choose(mx.array([[9.0, 9.0, 9.0, 9.0, -50.0]]), sampler.start([0], 5))
    assert chosen.tolist() == [4]


@pytest.mark.parametrize("value", [1e-6, 1e6])
def test_extremes_leave_a_distribution(value: float) -> None:
    """The lowest and the highest of everything together: a token comes, not a NaN taken for token 0."""
    settings = SamplingSettings(
        temperature=value,
        top_p=1e-45,
        repetition_penalty=value,
        presence_penalty=-1e6,
        frequency_penalty=-1e6,
        logit_bias=((1, 1e6), (2, -INF)),
    )
    sampler = make_sampler(settings)
    place = sampler.start([0, 2], 4)
    place = place.after(mx.array([3, 3, 3]))
    token, probs = sampler.draft(mx.array([[40.0, -40.0, 90.0, 3.0]]), place, [])
    assert probs is not None
    assert float(probs.sum().item()) == pytest.approx(1)
    assert token.tolist() == ([0] if value < 1 else [3])
