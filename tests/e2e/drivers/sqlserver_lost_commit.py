"""python-tds, whose COMMIT is a request of the transaction manager, and whose reply never comes."""

import pytds

import sqlserver_steps as at

connection = pytds.connect(
    dsn=at.HOST, port=at.PORT, database=at.DATABASE, cafile=at.CA, appname=at.NAME, autocommit=False,
    access_token_callable=lambda: at.TOKEN, login_timeout=at.PATIENCE, disable_connect_retry=True,
)
with connection.cursor() as cursor:
    cursor.execute("EXEC sp_set_session_context N'correlation_id', N'manager'")
    cursor.execute("INSERT INTO dbo.parcels (driver, step, n) VALUES (N'markers', N'manager', 1)")
try:
    connection.commit()
except Exception as error:
    print("lost", type(error).__name__)
