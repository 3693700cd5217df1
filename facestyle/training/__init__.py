"""Trainings: of styles, encoders and what they are made with."""

from facestyle.tuning import tune_process

tune_process()  # before torch is there; without it a step on a CPU takes half as long again or twice as long
