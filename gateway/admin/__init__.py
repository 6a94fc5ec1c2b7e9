"""The admin API: the operations of the commands, over HTTP, for administering keys.

    operation       what an operation is: method, path, what it reads and answers, its refusals
    call            one call of an operation, and the changes that it makes
    documents       what is read and answered, as Structs; the OpenAPI document is made from the same ones
    tenants, ...    the operations, resource by resource: each module ends with its table
    face            the routes made of the tables
    openapi         the document made of the tables
    worker          what `cachegate serve` runs in its workers

An operation is added by an `Action`, its line in the Cedar schema, and a row in a table.
"""
