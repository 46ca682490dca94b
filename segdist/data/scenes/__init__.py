"""Generated street scenes in the layout of Cityscapes: the embedded data set, which may be redistributed."""

from segdist.data.scenes.dataset import ScenesConfig, ScenesError, ensure_scenes, write_scenes

__all__ = ["ScenesConfig", "ScenesError", "ensure_scenes", "write_scenes"]
