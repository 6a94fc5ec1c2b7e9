"""What commands work in: `session` is opened for one and closed after it.

What it finds there is made once by `setup`: the state folder with its secrets, the rules of the policy
folder, the first admin key.
"""
