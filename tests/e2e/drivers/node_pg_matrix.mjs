// node-postgres through the list of tests/e2e/matrix.rs. Argument: the folder of node_modules. See
// psycopg3_matrix.py.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { Readable } from 'node:stream';
import { pipeline as flow } from 'node:stream/promises';
import { setTimeout as pause } from 'node:timers/promises';

const require = createRequire(process.argv[2] + '/');
const pg = require('pg');
const Cursor = require('pg-cursor');
const { from: copyFrom, to: copyTo } = require('pg-copy-streams');

const { env } = process;
const NAME = env.PGAPPNAME;
const ROWS = Number(env.STORY_ROWS);
const INSERT = 'INSERT INTO parcels (driver, step, n) VALUES ($1, $2, $3)';
// Such a row's xmin is the subtransaction's; the journal names the transaction.
const IN_SAVEPOINT = `INSERT INTO parcels (driver, step, n, body) VALUES ($1, 'recovery', 4, pg_current_xact_id()::text)`;
const LARGE = 5 * 1024 * 1024;
const ssl = { ca: readFileSync(env.PGSSLROOTCERT) };

// The rest comes from libpq's variables.
const open = async (more = {}) => {
  const client = new pg.Client({ ssl, ...more });
  client.on('error', () => {});
  await client.connect();
  return client;
};
const session = async (act, more) => {
  const client = await open(more);
  try {
    return await act(client);
  } finally {
    await client.end();
  }
};
const raises = async (code, promise) => {
  const error = await promise.then(() => assert.fail(`no ${code}`), (error) => error);
  assert.equal(error.code, code, error.message);
  return error;
};
const one = async (client, text, values) => Object.values((await client.query(text, values)).rows[0])[0];
const insert = (client, step, n) => client.query(INSERT, [NAME, step, n]);
const count = async (client, step) =>
  Number(await one(client, 'SELECT count(*) FROM parcels WHERE driver = $1 AND step = $2', [NAME, step]));

const steps = {
  connect: () => session(async (client) => {
    assert.equal(await one(client, 'SELECT current_database()'), 'orders');
    assert.ok(client.connection.stream.authorized);
  }),

  async refused() {
    const error = await raises('42501', open({ database: 'nowhere' }));
    assert.match(error.detail, /^gatepost session s-/);
    assert.ok(error.hint);
  },

  prepared: () => session(async (client) => {
    const at = new Date('2026-01-02T03:04:05.678Z');
    const text = `INSERT INTO parcels (driver, step, n, body, raw, doc, at, list)
      VALUES ($1, 'prepared', $2, $3, $4, $5, $6, $7) RETURNING n, body, raw, doc, at, list`;
    for (let n = 1; n <= 100; n++) {
      const row = [n, n % 2 ? null : `text ${n} ☃`, Buffer.from([0, 255, n]), { n: [n, null] }, at, [n, null, -n]];
      const { rows } = await client.query({ name: 'ship', text, values: [NAME, ...row], rowMode: 'array' });
      assert.deepEqual(rows[0], row);
      const query = { text: 'SELECT n, raw FROM parcels WHERE driver = $1 AND step = $2 AND n = $3', binary: true };
      if (n % 10 === 0) assert.equal((await client.query({ ...query, values: [NAME, 'prepared', n] })).rows[0].n, n);
    }
    assert.equal(await count(client, 'prepared'), 100);
  }),

  async pipeline() {
    const numbers = (from, to) => Array.from({ length: to - from }, (_, i) => from + i);
    const several = async (client, first) => {
      await Promise.all(numbers(first, first + 10).map((n) => insert(client, 'pipeline', n)));
      const mixed = await Promise.allSettled([1, first + 10, 1, first + 11].map((n) => insert(client, 'pipeline', n)));
      assert.deepEqual(mixed.map(({ status }) => status), ['rejected', 'fulfilled', 'rejected', 'fulfilled']);
      assert.equal(mixed[0].reason.code, '23505');
      const block = numbers(first + 12, first + 25).map((n) => insert(client, 'pipeline', n));
      await Promise.all([client.query('BEGIN'), ...block, client.query('COMMIT')]);
    };
    // Queued: each is sent when the one before has been answered …
    await session((client) => several(client, 1));
    // … and all on their way at once.
    await session((client) => several(client, 26), { pipeline: true });
    await session(async (client) => {
      const two = await client.query('SELECT 1 AS x; SELECT 2 AS y');
      assert.deepEqual(two.map(({ rows }) => rows[0]), [{ x: 1 }, { y: 2 }]);
      assert.equal(await count(client, 'pipeline'), 50);
    });
  },

  copy: () => session(async (client) => {
    const lines = Array.from({ length: 10_000 }, (_, i) => `${NAME}\tcopy\t${i + 1}\n`);
    const sink = () => client.query(copyFrom('COPY parcels (driver, step, n) FROM STDIN'));
    await flow(Readable.from(lines), sink());
    await raises('22P02', flow(Readable.from([`${NAME}\tcopy\tmany\n`]), sink()));
    let sum = 0;
    let rest = '';
    const source = client.query(copyTo(`COPY (SELECT n FROM parcels WHERE driver = '${NAME}' AND step = 'copy') TO STDOUT`));
    for await (const block of source) {
      const parts = (rest + block).split('\n');
      rest = parts.pop();
      for (const n of parts) sum += Number(n);
    }
    assert.equal(sum, 50_005_000);
  }),

  large: () => session(async (client) => {
    const [text, raw] = ['ß'.repeat(LARGE / 2), randomBytes(LARGE)];
    const into = `INSERT INTO parcels (driver, step, n, body, raw) VALUES ($1, 'large', 1, $2, $3)`;
    await client.query(into, [NAME, text, raw]);
    const query = `SELECT body, raw FROM parcels WHERE driver = $1 AND step = 'large'`;
    const { rows } = await client.query(query, [NAME]);
    assert.ok(rows[0].body === text && rows[0].raw.equals(raw));
  }),

  stream: () => session(async (client) => {
    const query = `SELECT i, 'row ' || i AS text FROM generate_series(1, $1::int) AS i`;
    const cursor = client.query(new Cursor(query, [ROWS]));
    let sum = 0;
    for (let rows; (rows = await cursor.read(10_000)).length; ) for (const { i } of rows) sum += i;
    assert.equal(sum, (ROWS * (ROWS + 1)) / 2);
    // Closed in the middle.
    const left = client.query(new Cursor(query, [ROWS]));
    assert.equal((await left.read(10)).length, 10);
    await left.close();
    assert.equal(await one(client, 'SELECT 7'), 7);
  }),

  // The driver's own way, in clear; and the same inside TLS.
  cancel: () => session((client) => session(async (watcher) => {
    const pid = await one(client, 'SELECT pg_backend_pid()');
    const asleep = `SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $1`;
    const ended = (canceler) => new Promise((done) => canceler.connection.on('error', done).on('end', done));
    const inClear = (query) => {
      const canceler = new pg.Client({ ssl });
      canceler.cancel(client, query);
      return ended(canceler);
    };
    const inTls = () => {
      const canceler = new pg.Client({ ssl });
      const { connection } = canceler;
      connection.on('connect', () => connection.requestSsl());
      connection.on('sslconnect', () => connection.cancel(client.processID, client.secretKey));
      connection.connect(client.port, client.host);
      return ended(canceler);
    };
    for (const cancel of [inClear, inTls]) {
      const query = new pg.Query('SELECT pg_sleep(30)');
      const slept = raises('57014', new Promise((good, bad) => query.on('end', good).on('error', bad)));
      client.query(query);
      while (!(await one(watcher, asleep, [pid]))) assert.equal(client.activeQuery, query);
      await cancel(query);
      await slept;
    }
    // With nothing under way it comes to nothing.
    await inTls();
    await client.query('SELECT pg_sleep(0.1)');
  })),

  recovery: () => session(async (client) => {
    await raises('42P01', client.query('SELECT * FROM nothing'));
    await insert(client, 'recovery', 1);
    assert.equal((await raises('23505', insert(client, 'recovery', 1))).constraint, 'parcels_once');
    await client.query('BEGIN');
    await insert(client, 'recovery', 2);
    await raises('22012', client.query('SELECT 1 / 0'));
    await raises('25P02', client.query('SELECT 7'));
    await client.query('ROLLBACK');
    await client.query('BEGIN');
    await insert(client, 'recovery', 3);
    await client.query('SAVEPOINT here');
    await raises('23505', insert(client, 'recovery', 1));
    await client.query('ROLLBACK TO SAVEPOINT here');
    await client.query(IN_SAVEPOINT, [NAME]);
    await client.query('COMMIT');
    assert.equal(await count(client, 'recovery'), 3);
  }),

  transactions: () => session(async (client) => {
    for (const [i, level] of ['read uncommitted', 'read committed', 'repeatable read', 'serializable'].entries()) {
      await client.query(`BEGIN ISOLATION LEVEL ${level}`);
      await insert(client, 'transactions', i + 1);
      assert.equal(await one(client, 'SHOW transaction_isolation'), level);
      await client.query('COMMIT');
    }
    await client.query('BEGIN');
    await insert(client, 'transactions', 99);
    await client.query('ROLLBACK');
    await client.query('BEGIN READ ONLY');
    await raises('25006', insert(client, 'transactions', 98));
    await client.query('ROLLBACK');
    assert.equal(await count(client, 'transactions'), 4);
  }),

  // A worker whose token ends again and again: what was answered is there, once.
  async expiry() {
    const token = async () => {
      const body = new URLSearchParams(env.STORY_TOKEN_FORM);
      return (await (await fetch(env.STORY_TOKEN_URL, { method: 'POST', body })).json()).access_token;
    };
    let done = 0;
    for (let ends = 0; ends < 2; ends++) {
      const client = new pg.Client({ ssl, password: token });
      let told;
      client.on('error', (error) => (told ??= error));
      try {
        await client.connect();
        for (;;) {
          await insert(client, 'expiry', done + 1);
          done++;
          await pause(50);
        }
      } catch (error) {
        // Told while at rest, this driver keeps the word for the `error` event.
        told ??= error;
        const how = told.code === '57P01' ? told.hint : told.code + told.message;
        assert.match(how, /new token|not queryable|terminated|ECONN|EPIPE|token expired/);
      }
      await client.end().catch(() => {});
    }
    await session(async (client) => assert.equal(await count(client, 'expiry'), done));
    assert.ok(done > 1);
    console.log('expiry', done);
  },
};

for (const [name, act] of Object.entries(steps)) {
  const started = performance.now();
  await act();
  console.log(`${name}: good (${((performance.now() - started) / 1000).toFixed(2)} s)`);
}
