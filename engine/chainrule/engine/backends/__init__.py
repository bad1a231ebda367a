"""The settings of PyTorch's libraries for other devices, which programs set before they choose one."""

from chainrule.engine.backends import cudnn, mps

__all__ = ["cudnn", "mps"]
