"""What the unmodified engine is offered: a model's metadata, with a URL for each file.

`metadata` is the provider's word or, through `local_metadata`, the cache's. `offers` makes one caller's
answer of it: `links` signs our own URLs, `origins` remembers whose URL stands for a file without a
digest, `attestations` which shared blobs count, and `minting` is what follows from handing links out.
What is not in the cache comes through `relay`, from where `sealed_urls` and `storage_heads` say.
"""
