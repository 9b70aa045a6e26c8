"""As PEFT holds it: the trial's own adapter, with a reference to its base that loads as it stands."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec

from torch import nn

from rankexp.export.target import Target, Written
from rankexp.export.with_peft import attach_with_peft
from rankexp.lora.peft_format import CONFIG_NAME, WEIGHTS_NAME


def write_peft(target: Target) -> Written:
    """Write the two files of PEFT.

    Raises:
        ConfigError: The base model has no files that PEFT could load.
    """
    config = json.loads((target.adapter / CONFIG_NAME).read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": target.loads_from, "revision": target.revision}
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (target.folder / CONFIG_NAME).write_text(text, encoding="utf-8")
    shutil.copyfile(target.adapter / WEIGHTS_NAME, target.folder / WEIGHTS_NAME)

    def read() -> nn.Module:
        if find_spec("peft") is None:
            return target.adapted(target.folder)
        return attach_with_peft(target.bare(), target.folder).to(target.device)

    reader = "rankexp's own reader, since PEFT is not installed" if find_spec("peft") is None else "PEFT"
    kept = f"The base was kept in {target.base.quantise} while training; load it so." if target.base.quantise else ""
    return Written(read, target.rounding, _use(target), notes=(f"Read back by {reader}.", *([kept] if kept else [])))


def _use(target: Target) -> str:
    kind = target.data.objective.kind
    options = "".join(f", {name}={value!r}" for name, value in kind.options.items())
    return (
        f"from peft import PeftModel\nfrom transformers import {kind.auto_class}\n\n"
        f"base = {kind.auto_class}.from_pretrained({target.loads_from!r}{options}{_pinned(target)})\n"
        f"model = PeftModel.from_pretrained(base, {str(target.folder)!r})"
    )


def _pinned(target: Target) -> str:
    return f", revision={target.revision!r}" if target.revision else ""
