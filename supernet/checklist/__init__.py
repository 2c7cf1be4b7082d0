"""The checklist of Lindauer and Hutter, "Best Practices for Scientific Research on Neural
Architecture Search" (JMLR 21, 2020), filled in by evidence.

A *practice* is one item of the checklist. What a folder holds answers it: the practice is done, and
the evidence is named; or it is not done, and a command is named that would do it; or it does not
apply, and the reason is named. Nothing is run, and nothing is believed for which there is no
evidence in the folder.

| file | what it holds |
|---|---|
| ``practices.py`` | the practices in their three groups, and how a folder answers them |
| ``answer.py`` | an answer |
| ``record.py`` | what a folder holds, and the commands that go on from it |
| ``of_run.py``, ``of_study.py``, ``of_simulation.py`` | the evidence for each practice |
"""
