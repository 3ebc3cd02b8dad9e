"""The longer statements of the log (`aggregator/log.py`), by what they do. Text only."""

UNUSED = """
SELECT * FROM updates u WHERE lineage = :lineage AND epoch = :epoch AND outcome = 'accepted' AND sha256 IS NOT NULL
    AND merged >= (SELECT coalesce(max(round), 0) FROM rounds WHERE lineage = :lineage AND epoch = :epoch)
    AND NOT EXISTS (SELECT * FROM rounds r WHERE state != 'open'
        AND (r.lineage, r.epoch, r.round, r.task) = (u.lineage, u.epoch, u.merged, u.task))
ORDER BY device, id
"""

STATUS = "UPDATE devices SET state = ?, seq = ?, software = ?, last_seen = ?, task = ?, round = ? WHERE device = ?"

# What a device says of itself and what the roster says share a column: one that takes no part says nothing.
UNKNOWN = "UPDATE devices SET state = 'unknown' WHERE state NOT IN ('unverified', 'rejected', 'revoked')"

ENROLLED = """
INSERT INTO devices (device, key, state, seq, first_seen, last_seen)
VALUES (:device, :key, iif(:state = 'approved', 'unknown', :state), 0, :now, :now)
ON CONFLICT (device) DO UPDATE SET seq = iif(key = excluded.key, seq, 0),
    telemetry_seq = iif(key = excluded.key, telemetry_seq, 0), key = excluded.key, state = CASE
    WHEN :state != 'approved' THEN :state
    WHEN state IN ('unverified', 'rejected', 'revoked') THEN 'unknown'
    ELSE state END
"""

SPENT = """
UPDATE rounds SET seconds = :seconds
WHERE lineage = :lineage AND epoch = :epoch AND round = :round AND task = :task AND state = 'open'
"""

# What a device's updates come to; run in the transaction that adds one.
SUMS = """
UPDATE devices SET bytes = bytes + :bytes,
    rounds = rounds + (:outcome = 'accepted' AND :task = 'train'),
    trained = iif(
        :outcome = 'accepted' AND :task = 'train', (SELECT id FROM updates WHERE transfer = :transfer), trained)
WHERE device = :device
"""

SUMS_WITHOUT = """
UPDATE devices AS d SET (rounds, trained) = (
    SELECT count(*), max(id) FROM updates u WHERE u.device = d.device AND task = 'train' AND outcome = 'accepted'
) WHERE device = (SELECT device FROM updates WHERE transfer = ?)
"""

PRIVACY = "UPDATE devices SET epsilon = :epsilon, delta = :delta, accountant = :accountant WHERE device = :device"

# The account that a device gave for the newest of its rounds, but for one update: they may come in another order.
ACCOUNT = """
SELECT epsilon, delta, accountant FROM updates
WHERE device = :device AND lineage = :lineage AND outcome = 'accepted' AND epsilon IS NOT NULL
    AND transfer != :transfer
ORDER BY epoch DESC, round DESC LIMIT 1
"""

# The one of the next newer round that has arrived already.
ACCOUNT_AFTER = """
SELECT epsilon, delta, accountant FROM updates
WHERE device = :device AND lineage = :lineage AND outcome = 'accepted' AND epsilon IS NOT NULL
    AND (epoch, round) > (:epoch, :round)
ORDER BY epoch, round LIMIT 1
"""

SPENT_OF_DEVICES = """
UPDATE rounds SET epsilon = :epsilon, delta = :delta, accountant = :accountant, clip_norm = :clip_norm
WHERE lineage = :lineage AND epoch = :epoch AND round = :round AND task = :task
"""

PASS_ON = """
UPDATE updates SET merged = iif(:carried AND sha256 IS NOT NULL, merged + 1, NULL)
WHERE lineage = :lineage AND epoch = :epoch AND merged = :round AND task = :task AND outcome = 'accepted'
"""

# The oldest row that PASS_ON changes.
FIRST = """
SELECT min(id) FROM updates
WHERE lineage = :lineage AND epoch = :epoch AND merged = :round AND task = :task AND outcome = 'accepted'
"""

CLOSE = """
UPDATE rounds SET state = 'closed', closed_at = :now, bytes_up = :up, bytes_down = :down,
    seconds = :seconds,
    accepted = (SELECT count(*) FROM updates u WHERE u.lineage = :lineage AND u.epoch = :epoch AND u.merged = :round
        AND u.task = :task AND outcome = 'accepted'),
    refused = (SELECT count(*) FROM updates u WHERE u.lineage = :lineage AND u.epoch = :epoch AND u.round = :round
        AND u.task = :task AND outcome != 'accepted')
WHERE lineage = :lineage AND epoch = :epoch AND round = :round AND task = :task
"""

AGREED = """
UPDATE rounds SET threshold = :threshold
WHERE lineage = :lineage AND epoch = :epoch AND round = :round AND task = :task
"""

# The newest measurement of every device that started from a model counts, also of one whose update came late.
# CROSS JOIN keeps SQLite to this order (https://www.sqlite.org/optoverview.html): a model's rounds first. The other
# one, which it chose, walks through all updates of the epoch at every close.
MEASURE = """
UPDATE models AS m SET (loss, accuracy, roc_auc, test_samples) = (
    SELECT sum(base_loss * test_samples) / sum(test_samples), sum(base_accuracy * test_samples) / sum(test_samples),
        sum(base_roc_auc * test_samples) / sum(iif(base_roc_auc IS NULL, NULL, test_samples)), sum(test_samples)
    FROM updates WHERE id IN (
        SELECT max(u.id) FROM rounds r CROSS JOIN updates u USING (lineage, epoch, round, task)
        WHERE r.lineage = m.lineage AND r.epoch = m.epoch AND r.base_sha256 = m.sha256
            AND u.outcome = 'accepted' AND u.base_loss IS NOT NULL AND u.test_samples > 0
        GROUP BY u.device)
) WHERE lineage = :lineage AND epoch = :epoch AND sha256 IN (
    SELECT r.base_sha256 FROM updates u JOIN rounds r USING (lineage, epoch, round, task)
    WHERE u.lineage = :lineage AND u.epoch = :epoch AND u.task = :task AND u.merged = :round AND u.base_loss IS NOT NULL
)
"""

# The devices' own models after training, weighted by their test rows; a late update counts where it was merged.
LOCAL = """
UPDATE rounds AS r SET (local_loss, local_accuracy, local_roc_auc) = (
    SELECT sum(loss * test_samples) / sum(test_samples), sum(accuracy * test_samples) / sum(test_samples),
        sum(roc_auc * test_samples) / sum(iif(roc_auc IS NULL, NULL, test_samples))
    FROM updates u WHERE (u.lineage, u.epoch, u.merged, u.task) = (r.lineage, r.epoch, r.round, r.task)
        AND u.outcome = 'accepted' AND u.loss IS NOT NULL AND u.test_samples > 0)
WHERE lineage = :lineage AND epoch = :epoch AND round = :round AND task = :task AND task = 'train'
"""
