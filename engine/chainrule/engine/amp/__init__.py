"""Mixed precision: products in bfloat16 or float16, parameters and losses in float32."""

from chainrule.engine.amp.autocast_mode import autocast, custom_bwd, custom_fwd, is_autocast_available
from chainrule.engine.amp.grad_scaler import GradScaler

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]
