"""Each quantizer behind one file: a function from a prepared fp32 model to a Q/DQ model."""
