"""How models are evaluated: what is fed, how fast it runs, who judges. `models.evaluate` is the way in.

plan        pure: what a model is to be judged by, given itself and the data
feeding     data → input tensors, one sample or many at a time
batching    pure: a model's bytes → the same model for many samples at once
answering   samples → outputs: timed one by one, then as many at once as gives the same bits
judges      outputs → scores: classes, boxes, likeness to the float model
here        all of it in one process, the child
"""
