-- What a key was refused and then allowed: a grant that was asked for, or rules that somebody loosened.
SELECT denied.any_key AS key_id, denied.tenant, coalesce(denied.resource.requested, denied.model) AS model,
    min(denied.time) AS denied_at, min(allowed.time) AS allowed_at
FROM records AS denied
JOIN records AS allowed
    ON allowed.kind = 'decision' AND allowed.decision = 'allow' AND allowed.key_id = denied.any_key
    AND denied.resource.requested IN (allowed.model, allowed.resource.requested)
    AND allowed.time > denied.time
WHERE denied.kind = 'decision' AND denied.decision = 'deny'
    AND denied.reason IN ('not-permitted', 'missing-action', 'missing-scope', 'expired-grant', 'grant-not-yet-valid')
GROUP BY ALL
ORDER BY allowed_at;
