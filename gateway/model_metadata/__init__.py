"""The metadata that the unmodified engine gets about a model, with a URL for each file.

`sources` gets it from the provider or, through `local_metadata`, from the cache. `caller_metadata` makes one
caller's answer of it: `links` signs our own URLs, `origins` records whose URL is used for a file without a
digest, `attestations` decides which links to shared blobs count, and `link_effects` acts when links are
handed out. Files that are not in the cache are streamed by `relay`, from the URLs in `sealed_urls`;
`storage_heads` interprets the storage's answers.
"""
