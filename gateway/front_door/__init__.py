"""The front door: what a request to an inference server asks for, and what is sent there in its place.

The inference server is not changed and trusts whoever reaches it. So everything that a request can make it do
is known here beforehand: which model it loads, with which key, what it fetches, and what it keeps in memory
under a name that another tenant could use too.

    match → read → (the guard authenticates, decides and records) → write → send → answer
"""
