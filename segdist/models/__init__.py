"""UNet and HRNetV2, and the file format of a trained model."""
