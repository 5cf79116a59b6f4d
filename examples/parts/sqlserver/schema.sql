-- The tables of the SQL Server examples, and the two roles that may write them. Runs in the database that
-- the consumers use, on SQL Server 2016 and later, Azure SQL, and Babelfish; once.

CREATE TABLE dbo.inbox (
    consumer nvarchar(64) COLLATE Latin1_General_BIN2 NOT NULL,
    -- Compared byte for byte: under most collations `a` and `A` would be one message.
    message_id nvarchar(256) COLLATE Latin1_General_BIN2 NOT NULL,
    applied_at datetime2 NOT NULL CONSTRAINT inbox_applied_at DEFAULT SYSUTCDATETIME(),
    CONSTRAINT inbox_once PRIMARY KEY (consumer, message_id)
);
GO
CREATE TABLE dbo.orders (
    id bigint NOT NULL CONSTRAINT orders_id PRIMARY KEY,
    customer nvarchar(100) NOT NULL,
    cents bigint NOT NULL CONSTRAINT orders_cents CHECK (cents > 0),
    -- Filled in by the database from the session: nobody has to remember it.
    correlation_id nvarchar(256) NOT NULL CONSTRAINT orders_correlation
        DEFAULT COALESCE(CAST(SESSION_CONTEXT(N'correlation_id') AS nvarchar(256)), N'')
);
GO
CREATE TABLE dbo.payments (
    id bigint NOT NULL CONSTRAINT payments_id PRIMARY KEY,
    order_id bigint NOT NULL,
    cents bigint NOT NULL CONSTRAINT payments_cents CHECK (cents > 0),
    correlation_id nvarchar(256) NOT NULL CONSTRAINT payments_correlation
        DEFAULT COALESCE(CAST(SESSION_CONTEXT(N'correlation_id') AS nvarchar(256)), N'')
);
GO
CREATE ROLE orders_writer;
GO
GRANT INSERT ON dbo.inbox TO orders_writer;
GO
GRANT INSERT ON dbo.orders TO orders_writer;
GO
CREATE ROLE payments_writer;
GO
GRANT INSERT ON dbo.inbox TO payments_writer;
GO
GRANT INSERT ON dbo.payments TO payments_writer;
GO
