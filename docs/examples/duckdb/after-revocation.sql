-- Keys that were used after they had ended: a deployment that was forgotten, or somebody who has a copy.
SELECT claimed_key_id AS key_id, tenant, reason, request.client AS client,
    count(*) AS times, min(time) AS first, max(time) AS last
FROM records
WHERE kind = 'decision' AND reason IN ('revoked-key', 'disabled-key', 'expired-key', 'removed-tenant')
GROUP BY ALL
ORDER BY times DESC;
