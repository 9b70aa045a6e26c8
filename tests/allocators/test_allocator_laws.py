"""The allocators that come with the package keep the laws of all allocators."""

from rankexp.testing import AllocatorConformance


class TestUniform(AllocatorConformance):
    def options(self):
        return {"name": "uniform"}


class TestRising(AllocatorConformance):
    def options(self):
        return {"name": "by_depth", "direction": "rising", "steepness": 3.0}


class TestFalling(AllocatorConformance):
    def options(self):
        return {"name": "by_depth", "direction": "falling"}


class TestByModule(AllocatorConformance):
    def options(self):
        return {"name": "by_module", "weights": {"query": 1.0, "dense": 2.0, "attention.output.dense": 0.0}}

    def eligible(self):
        return [n for n in self.shapes if not n.endswith(("value", "attention.output.dense"))]


class TestPattern(AllocatorConformance):
    def options(self):
        return {"name": "pattern", "r": 3, "rank_pattern": {"layer.0.*": 6, "layer.[12].*dense": 0}}

    keeps_budget = False


class TestGradientSpectrum(AllocatorConformance):
    def options(self):
        return {"name": "gradient_spectrum"}


class TestActivationSpectrum(AllocatorConformance):
    def options(self):
        return {"name": "activation_spectrum", "rho": 1.5}


class TestFisher(AllocatorConformance):
    def options(self):
        return {"name": "fisher"}
