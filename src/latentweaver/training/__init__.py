"""Training reasoners: how deep to think at each update, what to ask of the thought, and the loop that does it.

depth.py        how many steps an update takes: the published samplers, and curricula
objectives.py   what is asked: the answer at the last step, at every step, an expected loss over a learned exit
optimisers.py   AdamW, and Muon for the matrices
checkpoint.py   one atomic file that resumes bit for bit
watch.py        the failures of the literature, recognised while they happen and said in words
loop.py         the loop
"""
