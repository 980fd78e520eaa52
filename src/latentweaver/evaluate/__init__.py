"""Quality against compute: how often a reasoner is right, for every number of steps and every difficulty.

table = evaluate.accuracy_against_steps(model, tasks.Chains(), steps=[1, 2, 4, 8, 16, 32], difficulties=[2, 4, 8])
print(table)
"""

from latentweaver.evaluate.accuracy import Cell, Table, accuracy_against_steps
from latentweaver.evaluate.intervals import wilson

__all__ = ["Cell", "Table", "accuracy_against_steps", "wilson"]
