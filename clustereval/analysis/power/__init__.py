"""What a scenario will be able to see, before anything is sent.

``priors`` holds what cannot be known before a run; ``expected`` makes the rows of a run in which
nothing goes wrong; ``outlook`` lets the checks themselves say which gates these rows give, and asks
each what it would see; ``sizing`` turns that round.
"""
