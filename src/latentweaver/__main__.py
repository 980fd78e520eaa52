"""`python -m latentweaver` is `lw`; `torchrun -m latentweaver train chains` trains on several processes."""

from latentweaver.cli import main

main()
