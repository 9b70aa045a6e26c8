"""Unsloth around TRL's trainer."""

from __future__ import annotations

from rankexp.option_errors import ConfigError
from rankexp.report.recipe import MODEL, Recipe, Setting, Written, arguments
from rankexp.report.recipes.peft import beside, lora_arguments, training_arguments

_WHOLE = ("lm_head", "embed_tokens")


def write(setting: Setting) -> Written:
    """Write a trainer; only its data are left out.

    Raises:
        ConfigError: It is one that Unsloth refuses.
    """
    if setting.initialisation == "eva":
        raise ConfigError("Unsloth does not start factors from the inputs of layers (EVA).")
    if other := [name for name in setting.saved if name.rpartition(".")[2] not in _WHOLE and "norm" not in name]:
        raise ConfigError(f"Unsloth trains {', '.join(_WHOLE)} and norms whole, and not {other[0]}.")
    loaded = arguments(
        "FastLanguageModel.from_pretrained",
        {
            "model_name": setting.model or MODEL,
            "max_seq_length": setting.longest,
            "load_in_4bit": setting.nf4,
            "revision": setting.revision,
        },
    )
    lora = {name: value for name, value in lora_arguments(setting).items() if name != "task_type"}
    adapted = arguments("FastLanguageModel.get_peft_model", {**lora, "random_state": setting.seed})
    adapted = adapted.replace("(\n", "(\n    model,\n", 1)
    trainer = arguments("SFTConfig", {**training_arguments(setting), "max_length": setting.longest})
    text = (
        "from unsloth import FastLanguageModel\nfrom trl import SFTConfig, SFTTrainer\n\n"
        f"model, tokenizer = {loaded}\nmodel = {adapted}\narguments = {trainer}\n"
        "trainer = SFTTrainer(model=model, processing_class=tokenizer, args=arguments, train_dataset=your_rows)"
    )
    return Written(text, beside(setting))


RECIPE = Recipe("Unsloth", "unsloth 2026.10", "python", write, place=5)
