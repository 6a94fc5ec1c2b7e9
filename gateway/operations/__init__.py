"""What commands do, as values in and values out; the commands themselves only parse and print.

`session` opens the facts, the state folder and the audit log for one command. `setup` makes, once, what a
session needs: the state folder with its secrets, the rules of the policy folder, the first admin key.
"""
