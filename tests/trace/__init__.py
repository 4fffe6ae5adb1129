"""The training loop, the loader and the scorer's decoder on tensors that have no memory.

Fake tensors have shapes, types and devices; no kernel runs. A trace says on what device and in what
type everything would be computed, how much memory would be live at the most, and how many FLOPs
it would take, for models of any size on any machine.
"""
