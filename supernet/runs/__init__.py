"""What a run is made of: its parts, its folder, its jobs, and who runs them.

:mod:`~supernet.runs.setup` turns a configuration into checked parts. :mod:`~supernet.runs.folder`
keeps what is finished. A *job* (:mod:`~supernet.runs.job`) is one node of the run's graph: train a
supernet, choose an architecture, train a network. An *executor* (:mod:`~supernet.runs.executor`)
runs jobs that do not need each other, in this process or in several. The other files are the jobs,
one file each; :mod:`supernet.run` tells their story.
"""
