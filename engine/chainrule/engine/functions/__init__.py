"""The functions of tensors, each defined once: `cr.exp(x)` and `x.exp()` are the same function."""
