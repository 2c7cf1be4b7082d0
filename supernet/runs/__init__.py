"""The parts of a run: its settings, its folder, its jobs, and the executors that run the jobs.

:mod:`~supernet.runs.setup` turns a configuration into checked parts. :mod:`~supernet.runs.folder`
keeps what is finished. A *job* (:mod:`~supernet.runs.job`) is one node of the run's graph: train a
supernet, choose an architecture, train a network. An *executor* (:mod:`~supernet.runs.executor`)
runs jobs that do not need each other, in this process or in several. Each of the other files is one
job. :mod:`supernet.run` puts them together.
"""
