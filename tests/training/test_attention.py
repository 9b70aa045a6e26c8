"""How attention is computed: as asked, or refused in a sentence."""

import pytest
import torch
from tiny_language import make_base

from rankexp.models.kinds import CAUSAL
from rankexp.option_errors import ConfigError
from rankexp.training.bench import attention_of, prepare

CPU = torch.device("cpu")


@pytest.mark.parametrize(("asked", "found"), [("auto", "eager"), ("eager", "eager"), ("sdpa", "sdpa")])
def test_a_model_computes_attention_as_asked_and_gives_the_same_answers(asked, found):
    model, usual = (make_base("llama").build(CAUSAL) for _ in range(2))
    prepare(model, CPU, asked)
    prepare(usual, CPU)
    assert attention_of(model) == found
    ids = torch.arange(12).reshape(2, 6)
    torch.testing.assert_close(model(input_ids=ids).logits, usual(input_ids=ids).logits, atol=1e-5, rtol=1e-4)


def test_what_is_not_installed_is_refused_in_a_sentence(one_sentence):
    with pytest.raises(
        ConfigError, match=r"option 'attention' is 'flash_attention_2', and LlamaForCausalLM"
    ) as refused:
        prepare(make_base("llama").build(CAUSAL), CPU, "flash_attention_2")
    one_sentence(refused.value)
