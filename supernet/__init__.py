"""Supernet: train one-shot weight-sharing supernets, derive the best architecture, retrain and
export it.

One idea carries all of it. A *supernet* owns every candidate operation once and decides nothing:
each forward pass is told a *mixture*, which says for every decision of the search space how much of
each option to use (DARTS), or which single one to run (a path). So gradient search and sampled
training are the same call on the same weights:

    logits, table of choices, random numbers  ->  mixture  ->  supernet(x, mixture)  ->  loss

What papers call a method is a pair of small parts. A *sampler* says which mixtures the shared
weights train on, a *learner* how the logits learn: DARTS is softmax × gradient, single path
one-shot is uniform × none. *Modifiers* change the mixtures of any sampler. Behind them a *searcher*
chooses an architecture by its inherited weights; it is trained again from scratch beside random
ones, and exported.

To read the code: :mod:`supernet.mixture` (the values), :mod:`supernet.spaces.nb201` (a space, as
its paper defines it), :mod:`supernet.samplers.uniform` (a sampler), :mod:`supernet.train.loop` and
:mod:`supernet.train.search` (the training loop and its step), :mod:`supernet.run` (the stages of a
run). Imports point one way: mixture <- ops <- spaces <- samplers <- learners, modifiers <- train <-
search, evaluate, export <- cli. Only :mod:`supernet.cli` knows Hydra, only
:mod:`supernet.track.wandb` knows Weights & Biases.
"""
