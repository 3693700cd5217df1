"""Trainings: of styles, encoders and what they are made with."""

from facestyle.allocator import tune_allocator

tune_allocator()  # before torch is there; without it a step on a CPU takes half as long again or twice as long
