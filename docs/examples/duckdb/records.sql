-- The records of an export as a table. Run it first: every query here reads `records`.
-- The columns are named, so that a log in which nobody was refused yet has the columns of refusals, too.
CREATE OR REPLACE VIEW records AS
SELECT *,
    coalesce(key_id, claimed_key_id) AS any_key,
    coalesce(resource.model, resource.requested) AS model,
    -- The network of a site: 24 bits of IPv4, 48 of IPv6.
    CASE WHEN request.client LIKE '%.%'
        THEN regexp_extract(request.client, '^(\d+\.\d+\.\d+)\.', 1) || '.0/24'
        ELSE regexp_extract(request.client, '^((?:[^:]*:){3})', 1) || ':/48'
    END AS network
FROM read_json('audit.jsonl', format = 'newline_delimited', columns = {
    kind: 'VARCHAR', schema: 'UINTEGER', id: 'VARCHAR', chain: 'VARCHAR', seq: 'UBIGINT', prev: 'VARCHAR',
    time: 'TIMESTAMP', node: 'VARCHAR', hash: 'VARCHAR',
    tenant: 'VARCHAR', tenant_record: 'VARCHAR', key_id: 'VARCHAR', claimed_key_id: 'VARCHAR',
    principal: 'VARCHAR', decision: 'VARCHAR', reason: 'VARCHAR', action: 'VARCHAR', "grant": 'VARCHAR',
    size: 'UBIGINT', generation: 'UBIGINT', policies: 'VARCHAR[]',
    resource: 'STRUCT(kind VARCHAR, requested VARCHAR, model VARCHAR, package VARCHAR, file VARCHAR, md5 VARCHAR, sha256 VARCHAR)',
    request: 'STRUCT(method VARCHAR, route VARCHAR, client VARCHAR, agent VARCHAR, trace_id VARCHAR)',
    decision_id: 'VARCHAR', ending: 'VARCHAR', status: 'USMALLINT', bytes: 'UBIGINT', microseconds: 'UBIGINT',
    change_id: 'VARCHAR', actor: 'VARCHAR', subject: 'JSON', result: 'VARCHAR',
    source: 'VARCHAR', second: 'VARCHAR', count: 'UBIGINT', reasons: 'JSON',
    since: 'VARCHAR', until: 'VARCHAR', refused: 'UBIGINT', why: 'VARCHAR',
    state: 'VARCHAR', unproven_from: 'UBIGINT'
});
