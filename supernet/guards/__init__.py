"""What acts on a search that is about to collapse. Off unless a method's paper has it, or somebody
switches it on.
"""
