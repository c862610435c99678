"""Images to tensors to answers: the same code in calibration, evaluation and on the board. numpy and Pillow only."""
