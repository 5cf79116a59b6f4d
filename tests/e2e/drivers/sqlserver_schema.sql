-- What the programs in this folder (sqlserver_*, SqlServerJtds.java, tiberius and mssql-tds) write to and call.
-- Batches end at GO. Runs on SQL Server and on Babelfish. Who connects needs, beside a login, what the last batch grants.
CREATE TABLE dbo.parcels (
    driver nvarchar(40) NOT NULL,
    step nvarchar(40) NOT NULL,
    n int NOT NULL,
    body nvarchar(max) NULL,
    raw varbinary(max) NULL,
    CONSTRAINT parcels_once PRIMARY KEY (driver, step, n)
);
GO
-- A million numbers, 0 … 999999, without a table of them.
CREATE VIEW dbo.numbers AS
WITH digits AS (
    SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4
    UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9
)
SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d + 100000 * g.d AS n
FROM digits AS a CROSS JOIN digits AS b CROSS JOIN digits AS c
CROSS JOIN digits AS e CROSS JOIN digits AS f CROSS JOIN digits AS g;
GO
-- One row, twice the number handed out, and a return value. No result set.
CREATE PROCEDURE dbo.ship @driver nvarchar(40), @n int, @shipped int OUTPUT AS
BEGIN
    SET NOCOUNT ON;
    INSERT INTO dbo.parcels (driver, step, n) VALUES (@driver, N'procedure', @n);
    SET @shipped = @n * 2;
    RETURN 7;
END;
GO
CREATE ROLE orders_writer;
GO
GRANT SELECT, INSERT, UPDATE, DELETE ON dbo.parcels TO orders_writer;
GRANT SELECT ON dbo.numbers TO orders_writer;
GRANT EXECUTE ON dbo.ship TO orders_writer;
GO
