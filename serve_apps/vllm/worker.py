"""What vLLM's worker processes can be asked to do beside their own work.

Named in the engine's ``worker_extension_cls``: vLLM mixes the class into its worker, and an engine
calls its methods through ``collective_rpc``. Torch is imported where it is needed, so that the app
can be described where only Ray is installed.
"""

from __future__ import annotations

from typing import Any, Final

from serve_apps.vllm.weights import perturb

SEED: Final = 20260101
"""The same noise each time: a fault must be found again."""


class PerturbableWeights:
    """Adds noise to the weights that a worker holds, and takes it off again."""

    model_runner: Any
    """vLLM's own, of the class that this one is mixed into."""

    def perturb_weights(self, deviations: float) -> int:
        """Sets the noise on every weight matrix, in standard deviations of that matrix.

        Noise set before is replaced: the first time, a copy of the clean weights is kept. This
        takes the model's memory again, or twice that: it is meant for small models.

        On a CPU only the noise on the embedding has any effect: vLLM 0.29 multiplies with packed
        copies of the other matrices, which are not to be had here.

        Returns:
            How many matrices that vLLM has kept have noise now.
        """
        import torch

        matrices = {
            name: weight
            for name, weight in self.model_runner.get_model().named_parameters()
            if weight.dim() > 1 and weight.is_floating_point()
        }
        if not hasattr(self, "_clean_weights"):
            if not deviations:
                return 0
            self._clean_weights = {
                name: weight.detach().float().cpu().numpy().copy()
                for name, weight in matrices.items()
            }
        noisy = perturb(self._clean_weights, deviations, SEED)
        with torch.inference_mode():
            for name, weight in matrices.items():
                weight.copy_(torch.from_numpy(noisy[name]))
        return len(matrices) if deviations else 0
