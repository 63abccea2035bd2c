-- How far each archive has been written; its line number moves in the transaction of the rows.
-- Never dropped: an archive that is given again, years later, is known.
CREATE TABLE sqs2pg.backfill (
    pipeline    smallint NOT NULL,
    digest      text NOT NULL,              -- of the content: sha256:…, or etag:… with its place
    source      text NOT NULL,              -- path or s3:// URL, as last given
    size_bytes  bigint NOT NULL,            -- as it is stored
    line        bigint NOT NULL DEFAULT 0,  -- records committed
    begun_at    timestamptz NOT NULL DEFAULT now(),
    moved_at    timestamptz,
    finished_at timestamptz,
    PRIMARY KEY (pipeline, digest)
);
