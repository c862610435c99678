"""Smaller by training: pruning, weight clustering, quantization-aware training, and reports that measure what they say.

decide (pure)       schedule, masks, selection, tasks
touch the world     training_data, checkpoints, event_log, keras_files
train (in a child)  training, with one engine per kind: own_pruning, tfmot_pruning, tfmot_clustering, tfmot_qat
measure             variants, sparse_encoding
"""
