-- What people look at, found without looking at the rest: what was said in a conversation without its log, the acts
-- of one, and the audit, newest first.
CREATE INDEX journal_said ON journal (conversation) WHERE kind = 'message';
CREATE INDEX journal_acts ON journal (conversation) WHERE kind = 'act';
CREATE INDEX journal_trail ON journal (sequence)
    WHERE kind IN ('act', 'approval', 'policy', 'grant', 'secret', 'vault', 'incident');
