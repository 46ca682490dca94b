"""Label sets, the Cityscapes layout, augmentation, sampling and generated street scenes."""
