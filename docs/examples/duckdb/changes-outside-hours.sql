-- Changes by people at night or on a weekend (UTC): from 20 to 6 o'clock, Saturday and Sunday.
-- The gateway's own changes, of its workers and of documents, have no person as actor.
SELECT changes.time, changes.actor, changes.action, changes.tenant, changes.key_id, changes.subject,
    outcomes.result
FROM records AS changes
LEFT JOIN records AS outcomes ON outcomes.kind = 'change-outcome' AND outcomes.change_id = changes.id
WHERE changes.kind = 'change' AND (changes.actor LIKE 'cli:%' OR changes.actor LIKE 'key_%')
    AND (hour(changes.time) NOT BETWEEN 6 AND 19 OR isodow(changes.time) >= 6)
ORDER BY changes.time;
