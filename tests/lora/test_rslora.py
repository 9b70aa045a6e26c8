"""rsLoRA against PEFT's, with copied weights and in training; the dense computation is in ``test_layer.py``."""

import pytest
import torch
from peft_twin import conv1d, copied, deviations_in_training, linear

from rankexp.lora.layer import LoRALayer


# Measured: at most 6.2e-7 in float32 and 3.7e-15 in float64, over twelve seeds.
@pytest.mark.parametrize("make", [linear, conv1d])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
def test_output_and_gradients_equal_pefts_at_the_start_and_after_twenty_steps(make, dtype, tolerance):
    torch.manual_seed(0)
    layer = LoRALayer(make(dtype), 3, 6.0, scaling="rslora")
    twin = copied(layer)
    assert twin.use_rslora["default"]
    assert twin.scaling["default"] == layer.scaling == pytest.approx(6 / 3**0.5)
    found = deviations_in_training(layer, twin, dtype)
    assert max(found) < tolerance
    assert layer.lora_B.abs().max() > 1e-2
