"""The command `softplex bench`: softplex and its peers timed side by side in one run, against what is promised.

`cases` says what is measured and what is promised of it, `inputs` makes the data, `peers` prepares the calls, `timing`
and `memory` measure, `ratios` judges, `report` and `picture` show; `suite` runs it all. Errors against exact results
are not measured here but in the folder bench/ of the repository.
"""
