// tedious through the steps of sqlserver_steps.py, whose environment and results these are. Arguments: the folder of
// node_modules, and the names of steps.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';

const require = createRequire(process.argv[2] + '/');
const { Connection, Request, TYPES } = require('tedious');

const { env } = process;
const NAME = env.GATEPOST_TEST_NAME;
const ROWS = Number(env.GATEPOST_TEST_ROWS ?? 100_000);
const BIG = Number(env.GATEPOST_TEST_BIG ?? 20 * 1024 * 1024);
const BULK = 10_000;
// The server answers a cancel when it can; the driver's own patience is 5 s.
const PATIENCE = 30_000;

const authentication = env.GATEPOST_TEST_TOKEN
  ? { type: 'azure-active-directory-access-token', options: { token: env.GATEPOST_TEST_TOKEN } }
  : { type: 'default', options: { userName: env.GATEPOST_TEST_USER, password: env.GATEPOST_TEST_PASSWORD } };

const open = () => new Promise((resolve, reject) => {
  const connection = new Connection({
    server: env.GATEPOST_TEST_HOST,
    authentication,
    options: {
      port: Number(env.GATEPOST_TEST_PORT),
      database: env.GATEPOST_TEST_DATABASE,
      appName: NAME,
      encrypt: env.GATEPOST_TEST_TLS === 'strict' ? 'strict' : true,
      trustServerCertificate: false,
      cryptoCredentialsDetails: { ca: readFileSync(env.GATEPOST_TEST_CA) },
      connectTimeout: PATIENCE,
      cancelTimeout: PATIENCE,
      requestTimeout: 0,
    },
  });
  // The error that ends a login has no number; the server's messages before it have.
  const told = [];
  connection.on('errorMessage', ({ number, message }) => told.push({ number, message }));
  connection.on('error', () => {});
  connection.connect((error) => (error ? reject(Object.assign(error, { told })) : resolve(connection)));
});
const session = async (act) => {
  const connection = await open();
  try {
    return await act(connection);
  } finally {
    await new Promise((done) => connection.on('end', done).close());
  }
};

// Rows as arrays, with what the procedure gave back beside them.
const run = (connection, start, text, parameters = {}, outputs = {}) => new Promise((resolve, reject) => {
  const rows = [];
  const result = { rows, outputs: {}, returned: undefined };
  const request = new Request(text, (error) => (error ? reject(error) : resolve(result)));
  for (const [name, [type, value]] of Object.entries(parameters)) request.addParameter(name, type, value);
  for (const [name, type] of Object.entries(outputs)) request.addOutputParameter(name, type);
  request.on('row', (columns) => rows.push(columns.map(({ value }) => value)));
  request.on('returnValue', (name, value) => { result.outputs[name] = value; });
  request.on('doneProc', (_count, _more, status) => { result.returned = status; });
  connection[start](request);
});
const batch = (connection, text) => run(connection, 'execSqlBatch', text);
const query = (connection, text, parameters) => run(connection, 'execSql', text, parameters);
const manage = (connection, act, ...rest) => new Promise((resolve, reject) => {
  connection[act]((error) => (error ? reject(error) : resolve()), ...rest);
});
const raises = (promise) => promise.then(() => assert.fail('no error'), (error) => error);

const own = { driver: [TYPES.NVarChar, NAME] };
const count = async (connection, step) => {
  const text = 'SELECT COUNT(*) FROM dbo.parcels WHERE driver = @driver AND step = @step';
  return (await query(connection, text, { ...own, step: [TYPES.NVarChar, step] })).rows[0][0];
};
const insert = (connection, step, n, body = null, raw = null) =>
  query(connection, 'INSERT INTO dbo.parcels (driver, step, n, body, raw) VALUES (@driver, @step, @n, @body, @raw)', {
    ...own,
    step: [TYPES.NVarChar, step],
    n: [TYPES.Int, n],
    body: [TYPES.NVarChar, body],
    raw: [TYPES.VarBinary, raw],
  });
const STATE = `SELECT @@LOCK_TIMEOUT, CASE WHEN OBJECT_ID('tempdb..#mark') IS NULL THEN 0 ELSE 1 END,
  CAST(SESSION_CONTEXT(N'mark') AS nvarchar(40)), @@SPID`;

// A step returns its values, or [values, error] when an error is its result.
class Told {
  constructor(values, error) { Object.assign(this, { values, error }); }
}
const steps = {
  connect: () => session(async (connection) => {
    const [row] = (await batch(connection, "SELECT 42, N'hi äöü 😀', @@SPID")).rows;
    assert.deepEqual(row.slice(0, 2), [42, 'hi äöü 😀']);
    return row;
  }),

  refused: async () => new Told([], await raises(session(() => {}))),

  ddl: () => session(async (connection) => {
    const table = `${process.env.GATEPOST_TEST_SCHEMA ?? 'dbo'}.ddl_${NAME.replace(/[^a-z0-9]/gi, '_')}`;
    await batch(connection, `CREATE TABLE ${table} (n int NOT NULL PRIMARY KEY, body nvarchar(50) NULL)`);
    await batch(connection, `INSERT INTO ${table} VALUES (1, N'äöü')`);
    const [row] = (await batch(connection, `SELECT n, body FROM ${table}`)).rows;
    await batch(connection, `DROP TABLE ${table}`);
    assert.deepEqual(row, [1, 'äöü']);
    return row;
  }),

  // Prepared by hand, with the driver's own transaction around.
  prepared: () => session(async (connection) => {
    await manage(connection, 'beginTransaction');
    const text = 'INSERT INTO dbo.parcels (driver, step, n, body, raw) VALUES (@driver, @step, @n, @body, @raw)';
    let done;
    const request = new Request(text, (error) => done(error));
    const step = () => new Promise((resolve, reject) => { done = (error) => (error ? reject(error) : resolve()); });
    for (const [name, type] of [['driver', 'NVarChar'], ['step', 'NVarChar'], ['n', 'Int'], ['body', 'NVarChar'], ['raw', 'VarBinary']]) {
      request.addParameter(name, TYPES[type]);
    }
    const made = new Promise((resolve, reject) => request.once('prepared', resolve).once('error', reject));
    connection.prepare(request);
    await made;
    for (let n = 1; n <= 100; n++) {
      const executed = step();
      connection.execute(request, { driver: NAME, step: 'prepared', n, body: `text ${n} äöü 😀`, raw: Buffer.from([0, 255, n]) });
      await executed;
    }
    const gone = step();
    connection.unprepare(request);
    await gone;
    await manage(connection, 'commitTransaction');
    const back = "SELECT body, raw FROM dbo.parcels WHERE driver = @driver AND step = 'prepared' AND n = 100";
    assert.deepEqual((await query(connection, back, own)).rows[0], ['text 100 äöü 😀', Buffer.from([0, 255, 100])]);
    return [await count(connection, 'prepared')];
  }),

  rollback: () => session(async (connection) => {
    await manage(connection, 'beginTransaction');
    await insert(connection, 'rollback', 1);
    const within = await count(connection, 'rollback');
    await manage(connection, 'rollbackTransaction');
    return [within, await count(connection, 'rollback')];
  }),

  procedure: () => session(async (connection) => {
    const given = { ...own, n: [TYPES.Int, 21] };
    const { outputs, returned } = await run(connection, 'callProcedure', 'dbo.ship', given, { shipped: TYPES.Int });
    const values = [outputs.shipped, returned, await count(connection, 'procedure')];
    assert.deepEqual(values, [42, 7, 1]);
    return values;
  }),

  // Row by row, paused now and then as a slow reader does.
  rows: () => session((connection) => new Promise((resolve, reject) => {
    let seen = 0;
    let sum = 0;
    const text = `SELECT n, CAST(CONCAT(N'row ', n) AS nvarchar(40)) FROM dbo.numbers WHERE n < ${ROWS}`;
    const request = new Request(text, (error) => {
      if (error) return reject(error);
      assert.equal(sum, (ROWS * (ROWS - 1)) / 2);
      resolve([seen]);
    });
    request.on('row', ([n]) => {
      sum += n.value;
      if (++seen % 10_000 === 0) {
        request.pause();
        setImmediate(() => request.resume());
      }
    });
    connection.execSql(request);
  })),

  big: () => session(async (connection) => {
    const raw = Buffer.alloc(BIG, Buffer.from(Array.from({ length: 256 }, (_, i) => i)));
    const body = 'xäöü'.repeat(BIG / 8);
    await insert(connection, 'big', 1, body, raw);
    const text = "SELECT DATALENGTH(raw), DATALENGTH(body), raw, body FROM dbo.parcels WHERE driver = @driver AND step = 'big'";
    const [row] = (await query(connection, text, own)).rows;
    assert.ok(row[2].equals(raw) && row[3] === body);
    return row.slice(0, 2).map(Number);
  }),

  bulk: () => session(async (connection) => {
    await new Promise((resolve, reject) => {
      const load = connection.newBulkLoad('dbo.parcels', (error) => (error ? reject(error) : resolve()));
      load.addColumn('driver', TYPES.NVarChar, { length: 40, nullable: false });
      load.addColumn('step', TYPES.NVarChar, { length: 40, nullable: false });
      load.addColumn('n', TYPES.Int, { nullable: false });
      load.addColumn('body', TYPES.NVarChar, { length: Infinity, nullable: true });
      const rows = Array.from({ length: BULK }, (_, i) => [NAME, 'bulk', i + 1, `row ${i + 1} äöü`]);
      connection.execBulkLoad(load, rows);
    });
    const text = "SELECT body FROM dbo.parcels WHERE driver = @driver AND step = 'bulk' AND n = 77";
    assert.deepEqual((await query(connection, text, own)).rows, [['row 77 äöü']]);
    return [await count(connection, 'bulk')];
  }),

  cancel: () => session(async (connection) => {
    const started = performance.now();
    const canceled = raises(batch(connection, env.GATEPOST_TEST_LONG));
    await pause(2000);
    assert.ok(connection.cancel());
    const error = await canceled;
    const waited = Math.round(performance.now() - started);
    return new Told([(await batch(connection, 'SELECT 7')).rows[0][0], waited], error);
  }),

  recovery: () => session(async (connection) => {
    const syntax = await raises(batch(connection, 'SELECT 1 +'));
    await insert(connection, 'recovery', 1);
    const twice = await raises(insert(connection, 'recovery', 1));
    await insert(connection, 'recovery', 2);
    return [syntax.number, twice.number, await count(connection, 'recovery')];
  }),

  transactions: () => session(async (connection) => {
    await manage(connection, 'beginTransaction');
    await insert(connection, 'transactions', 1);
    await manage(connection, 'saveTransaction', 'here');
    await insert(connection, 'transactions', 2);
    await manage(connection, 'rollbackTransaction', 'here');
    await insert(connection, 'transactions', 3);
    await manage(connection, 'commitTransaction');
    const text = "SELECT COUNT(*), SUM(n) FROM dbo.parcels WHERE driver = @driver AND step = 'transactions'";
    const [row] = (await query(connection, text, own)).rows;
    assert.deepEqual(row, [2, 4]);
    return row;
  }),

  error: () => session(async (connection) => {
    const zero = await raises(batch(connection, 'SELECT 1 / 0'));
    const stated = await raises(batch(connection, "THROW 50001, N'stated äöü', 1;"));
    return new Told([zero.number, (await batch(connection, 'SELECT 7')).rows[0][0]], stated);
  }),

  idle: () => session(async (connection) => {
    tell('idle', true, ['ready']);
    const lines = createInterface({ input: process.stdin });
    const line = await new Promise((resolve) => lines.once('line', resolve).once('close', () => resolve('')));
    lines.close();
    return (await batch(connection, line.trim() || 'SELECT 43')).rows[0];
  }),

  reset: () => session(async (connection) => {
    await batch(connection, "SET LOCK_TIMEOUT 1234; CREATE TABLE #mark (n int); EXEC sp_set_session_context N'mark', N'kept'");
    const before = (await batch(connection, STATE)).rows[0];
    assert.deepEqual(before.slice(0, 3), [1234, 1, 'kept']);
    await manage(connection, 'reset');
    const [timeout, temporary, context, number] = (await batch(connection, STATE)).rows[0];
    return [timeout, temporary, context, number === before[3]];
  }),

  correlation: () => session(async (connection) => {
    const given = `correlation of ${NAME}`;
    const set = { key: [TYPES.NVarChar, 'correlation_id'], value: [TYPES.NVarChar, given] };
    await run(connection, 'callProcedure', 'sp_set_session_context', set);
    await insert(connection, 'correlation', 1, given);
    return [given];
  }),
};

const tell = (step, ok, values, error_number = null, error_text = null) =>
  console.log(JSON.stringify({ step, ok, values, error_number, error_text }));
// Everything that was said, the driver's own error first.
const explained = (error) => {
  const said = [...new Set((error.told ?? []).map(({ message }) => message))].filter((it) => !error.message.includes(it));
  const text = [`${error.code ?? error.name}: ${error.message}`, ...said].join('\n');
  return [error.number ?? error.told?.[0]?.number ?? null, text];
};

for (const step of process.argv.slice(3)) {
  try {
    const result = await steps[step]();
    if (result instanceof Told) tell(step, true, result.values, ...explained(result.error));
    else tell(step, true, result);
  } catch (error) {
    tell(step, false, [], ...explained(error));
  }
}
