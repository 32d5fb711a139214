"""What vLLM's worker processes can be asked to do beside their own work.

Named in the engine's ``worker_extension_cls``: vLLM mixes the class into its worker, and an engine
calls its methods through ``collective_rpc``. Torch is imported where it is needed, so that the app
can be described where only Ray is installed.
"""

from __future__ import annotations

from typing import Any

SEED = 20260101
"""The same noise each time: a fault must be found again."""


class PerturbableWeights:
    """Adds noise to the weights that a worker holds, and takes it off again."""

    model_runner: Any
    """vLLM's own, of the class that this one is mixed into."""

    def perturb_weights(self, deviations: float) -> int:
        """Sets the noise on every weight matrix, in standard deviations of that matrix.

        Noise set before is taken off first, from a copy of the weights that is made when the first
        is set: this takes the model's memory twice, which is meant for small models.

        Returns:
            How many matrices have noise now.
        """
        import torch

        matrices = {
            name: weight
            for name, weight in self.model_runner.get_model().named_parameters()
            if weight.dim() >= 2 and weight.is_floating_point()
        }
        kept = getattr(self, "_clean_weights", None)
        with torch.inference_mode():
            if kept is not None:
                for name, weight in matrices.items():
                    weight.copy_(kept[name])
            if not deviations:
                return 0
            if kept is None:
                self._clean_weights = {n: w.detach().clone() for n, w in matrices.items()}
            generator = torch.Generator().manual_seed(SEED)
            for weight in matrices.values():
                noise = torch.randn(weight.shape, generator=generator)
                scale = deviations * float(weight.float().std())
                weight.add_((noise * scale).to(weight.dtype).to(weight.device))
        return len(matrices)
