"""What calibration data do to a model: ranges, saturation, accuracy by number of samples, and whether they suit it.

    rivals, evidence, suspicion     can these images be what the model was trained on? (pure)
    memories, graph_part, probe     what the model's graph remembers of its training, and sees of them (TensorFlow)
    ranges, saturation, curve       what is counted per tensor, and how many samples are enough (pure)
    making                          the float file and int8 files of more and more samples (TensorFlow)
    observation                     runs those files and looks into them (a runtime)
    measurement                     all of it, each part in a child process; `report` is what it returns

What it does NOT do: change how a model is quantized; `convert` only says the warnings.
"""
