"""The servers to compare with, each as its own documentation sets it up for one small model on two cores."""
