// pgjdbc through the list of tests/e2e/matrix.rs; run from its source with the driver's jar on the class
// path. See psycopg3_matrix.py.

import java.io.StringReader;
import java.io.StringWriter;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.sql.Array;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.time.OffsetDateTime;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;
import org.postgresql.util.PGobject;
import org.postgresql.util.PSQLException;

public class PgjdbcMatrix {
    static final String NAME = env("PGAPPNAME");
    static final int ROWS = Integer.parseInt(env("STORY_ROWS"));
    static final String INSERT = "INSERT INTO parcels (driver, step, n) VALUES (?, ?, ?)";
    // Such a row's xmin is the subtransaction's; the journal names the transaction.
    static final String IN_SAVEPOINT = "INSERT INTO parcels (driver, step, n, body)"
            + " VALUES (?, 'recovery', 4, pg_current_xact_id()::text)";
    static final int LARGE = 5 * 1024 * 1024;

    interface Step {
        void run() throws Exception;
    }

    static String env(String name) {
        return System.getenv(name);
    }

    static void check(boolean right, Object seen) {
        if (!right) throw new AssertionError(String.valueOf(seen));
    }

    static PSQLException raises(String state, Step act) throws Exception {
        try {
            act.run();
        } catch (SQLException error) {
            SQLException cause = error.getNextException() == null ? error : error.getNextException();
            check(state.equals(error.getSQLState()), error);
            return (PSQLException) cause;
        }
        throw new AssertionError("no " + state);
    }

    static Connection openAs(String database, String password, String... more) throws SQLException {
        Properties settings = new Properties();
        settings.setProperty("user", env("PGUSER"));
        settings.setProperty("password", password);
        settings.setProperty("ApplicationName", NAME);
        // Or the driver sets its name only after it has logged in, too late for the journal.
        settings.setProperty("assumeMinServerVersion", "15");
        settings.setProperty("sslmode", "verify-full");
        settings.setProperty("sslrootcert", env("PGSSLROOTCERT"));
        for (int i = 0; i < more.length; i += 2) settings.setProperty(more[i], more[i + 1]);
        String url = "jdbc:postgresql://" + env("PGHOST") + ":" + env("PGPORT") + "/" + database;
        return DriverManager.getConnection(url, settings);
    }

    static Connection open(String... more) throws SQLException {
        return openAs(env("PGDATABASE"), env("PGPASSWORD"), more);
    }

    static <T> T one(Connection session, Class<T> type, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = session.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) statement.setObject(i + 1, values[i]);
            ResultSet rows = statement.executeQuery();
            rows.next();
            return rows.getObject(1, type);
        }
    }

    static long count(Connection session, String step) throws SQLException {
        return one(session, Long.class, "SELECT count(*) FROM parcels WHERE driver = ? AND step = ?", NAME, step);
    }

    static void run(Connection session, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = session.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) statement.setObject(i + 1, values[i]);
            statement.execute();
        }
    }

    static void insert(Connection session, String step, int n) throws SQLException {
        run(session, INSERT, NAME, step, n);
    }

    static void connect() throws Exception {
        try (Connection session = open()) {
            check(one(session, String.class, "SELECT current_database()").equals("orders"), session);
            check(session.isValid(5), session);
            // Drivers and tools look around.
            ResultSet tables = session.getMetaData().getTables(null, "public", "parcels", null);
            check(tables.next(), tables);
        }
        try (Connection session = open("assumeMinServerVersion", "")) {
            check(one(session, String.class, "SHOW application_name").equals(NAME), session);
        }
    }

    static void refused() throws Exception {
        PSQLException error = raises("42501", () -> openAs("nowhere", env("PGPASSWORD")).close());
        check(error.getServerErrorMessage().getDetail().startsWith("gatepost session s-"), error);
        check(error.getServerErrorMessage().getHint() != null, error);
    }

    static PGobject json(int n) throws SQLException {
        PGobject json = new PGobject();
        json.setType("jsonb");
        json.setValue("{\"n\": [" + n + ", null]}");
        return json;
    }

    static void prepared() throws Exception {
        OffsetDateTime at = OffsetDateTime.parse("2026-01-02T03:04:05.678901Z");
        // From its fifth use on a statement has a name and answers in binary.
        String sql = "INSERT INTO parcels (driver, step, n, body, raw, doc, at, list)"
                + " VALUES (?, 'prepared', ?, ?, ?, ?, ?, ?) RETURNING n, body, raw, doc, at, list";
        try (Connection session = open(); PreparedStatement statement = session.prepareStatement(sql)) {
            for (int n = 1; n <= 100; n++) {
                String body = n % 2 == 1 ? null : "text " + n + " ☃";
                byte[] raw = {0, (byte) 255, (byte) n};
                Integer[] list = {n, null, -n};
                Object[] row = {NAME, n, body, raw, json(n), at, session.createArrayOf("int4", list)};
                for (int i = 0; i < row.length; i++) statement.setObject(i + 1, row[i]);
                ResultSet got = statement.executeQuery();
                check(got.next() && got.getInt(1) == n, n);
                check(body == null ? got.getString(2) == null : body.equals(got.getString(2)), n);
                check(Arrays.equals(raw, got.getBytes(3)), n);
                check(got.getString(4).equals(json(n).getValue()), got.getString(4));
                check(at.isEqual(got.getObject(5, OffsetDateTime.class)), n);
                Array back = got.getArray(6);
                check(Arrays.equals(list, (Integer[]) back.getArray()), n);
            }
            check(count(session, "prepared") == 100, "rows");
        }
    }

    static void batch(Connection session, int... numbers) throws SQLException {
        try (PreparedStatement statement = session.prepareStatement(INSERT)) {
            for (int n : numbers) {
                statement.setString(1, NAME);
                statement.setString(2, "pipeline");
                statement.setInt(3, n);
                statement.addBatch();
            }
            statement.executeBatch();
        }
    }

    static int[] numbers(int from, int to) {
        return java.util.stream.IntStream.range(from, to).toArray();
    }

    static void pipeline() throws Exception {
        try (Connection session = open()) {
            batch(session, numbers(1, 26));
            raises("23505", () -> batch(session, 98, 1, 99));
        }
        try (Connection session = open("reWriteBatchedInserts", "true")) {
            session.setAutoCommit(false);
            batch(session, numbers(26, 51));
            session.commit();
            raises("23505", () -> batch(session, 98, 1, 99));
            session.rollback();
            check(count(session, "pipeline") == 50, "rows");
        }
    }

    static void copy() throws Exception {
        try (Connection session = open()) {
            CopyManager copy = session.unwrap(PGConnection.class).getCopyAPI();
            StringBuilder lines = new StringBuilder();
            for (int n = 1; n <= 10_000; n++) lines.append(NAME + "\tcopy\t" + n + "\n");
            String into = "COPY parcels (driver, step, n) FROM STDIN";
            check(copy.copyIn(into, new StringReader(lines.toString())) == 10_000, "rows");
            raises("22P02", () -> copy.copyIn(into, new StringReader(NAME + "\tcopy\tmany\n")));
            StringWriter sink = new StringWriter();
            String from = "SELECT n FROM parcels WHERE driver = '" + NAME + "' AND step = 'copy'";
            copy.copyOut("COPY (" + from + ") TO STDOUT", sink);
            long sum = sink.toString().lines().mapToLong(Long::parseLong).sum();
            check(sum == 50_005_000, sum);
        }
    }

    static void large() throws Exception {
        String text = "ß".repeat(LARGE / 2);
        byte[] raw = new byte[LARGE];
        new Random(7).nextBytes(raw);
        String into = "INSERT INTO parcels (driver, step, n, body, raw) VALUES (?, 'large', 1, ?, ?)";
        String query = "SELECT body, raw FROM parcels WHERE driver = ? AND step = 'large'";
        try (Connection session = open()) {
            run(session, into, NAME, text, raw);
            PreparedStatement statement = session.prepareStatement(query);
            statement.setString(1, NAME);
            ResultSet row = statement.executeQuery();
            check(row.next() && row.getString(1).equals(text) && Arrays.equals(row.getBytes(2), raw), "value");
        }
    }

    static void stream() throws Exception {
        String query = "SELECT i, 'row ' || i FROM generate_series(1, " + ROWS + ") AS i";
        try (Connection session = open(); Statement statement = session.createStatement()) {
            // By parts only inside a block.
            session.setAutoCommit(false);
            statement.setFetchSize(10_000);
            ResultSet rows = statement.executeQuery(query);
            long sum = 0;
            while (rows.next()) sum += rows.getInt(1);
            check(sum == (long) ROWS * (ROWS + 1) / 2, sum);
            // Left in the middle.
            rows = statement.executeQuery(query);
            check(rows.next(), "row");
            rows.close();
            check(one(session, Integer.class, "SELECT 7") == 7, "seven");
            session.commit();
        }
    }

    static void cancel() throws Exception {
        String asleep = "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = ?";
        try (Connection session = open(); Connection watcher = open(); Statement sleeper = session.createStatement()) {
            int process = one(session, Integer.class, "SELECT pg_backend_pid()");
            Step sleep = () -> sleeper.execute("SELECT pg_sleep(30)");
            CompletableFuture<Void> slept = CompletableFuture.runAsync(() -> {
                try {
                    raises("57014", sleep);
                } catch (Exception error) {
                    throw new RuntimeException(error);
                }
            });
            while (!Boolean.TRUE.equals(one(watcher, Boolean.class, asleep, process))) check(!slept.isDone(), slept);
            sleeper.cancel();
            slept.get();
            // With nothing under way it comes to nothing.
            session.unwrap(PGConnection.class).cancelQuery();
            run(session, "SELECT pg_sleep(0.1)");
            sleeper.setQueryTimeout(1);
            raises("57014", sleep);
            check(one(session, Integer.class, "SELECT pg_backend_pid()") == process, "connection");
        }
    }

    static void recovery() throws Exception {
        try (Connection session = open()) {
            raises("42P01", () -> run(session, "SELECT * FROM nothing"));
            insert(session, "recovery", 1);
            PSQLException twice = raises("23505", () -> insert(session, "recovery", 1));
            check("parcels_once".equals(twice.getServerErrorMessage().getConstraint()), twice);
            session.setAutoCommit(false);
            insert(session, "recovery", 2);
            raises("22012", () -> run(session, "SELECT 1 / 0"));
            raises("25P02", () -> run(session, "SELECT 7"));
            session.rollback();
            insert(session, "recovery", 3);
            Savepoint here = session.setSavepoint("here");
            raises("23505", () -> insert(session, "recovery", 1));
            session.rollback(here);
            run(session, IN_SAVEPOINT, NAME);
            session.commit();
            check(count(session, "recovery") == 3, "rows");
        }
        // A savepoint before each statement, set and let go by the driver.
        try (Connection session = open("autosave", "always")) {
            session.setAutoCommit(false);
            raises("22012", () -> run(session, "SELECT 1 / 0"));
            check(one(session, Integer.class, "SELECT 7") == 7, "seven");
            session.commit();
        }
    }

    static void transactions() throws Exception {
        Map<String, Integer> levels = new LinkedHashMap<>();
        levels.put("read uncommitted", Connection.TRANSACTION_READ_UNCOMMITTED);
        levels.put("read committed", Connection.TRANSACTION_READ_COMMITTED);
        levels.put("repeatable read", Connection.TRANSACTION_REPEATABLE_READ);
        levels.put("serializable", Connection.TRANSACTION_SERIALIZABLE);
        try (Connection session = open()) {
            session.setAutoCommit(false);
            int n = 0;
            for (Map.Entry<String, Integer> level : levels.entrySet()) {
                session.setTransactionIsolation(level.getValue());
                insert(session, "transactions", ++n);
                String now = one(session, String.class, "SHOW transaction_isolation");
                check(now.equals(level.getKey()), now);
                session.commit();
            }
            insert(session, "transactions", 99);
            session.rollback();
            session.setReadOnly(true);
            raises("25006", () -> insert(session, "transactions", 98));
            session.rollback();
            check(count(session, "transactions") == 4, "rows");
        }
    }

    static String token() throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(env("STORY_TOKEN_URL")))
                .header("Content-Type", "application/x-www-form-urlencoded")
                .POST(HttpRequest.BodyPublishers.ofString(env("STORY_TOKEN_FORM")))
                .build();
        String answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body();
        return answer.replaceFirst("(?s).*\"access_token\" *: *\"([^\"]+)\".*", "$1");
    }

    /** A worker whose token ends again and again: what was answered is there, once. */
    static void expiry() throws Exception {
        int done = 0;
        for (int ends = 0; ends < 2; ) {
            try (Connection session = openAs(env("PGDATABASE"), token())) {
                while (true) {
                    insert(session, "expiry", done + 1);
                    done++;
                    Thread.sleep(50);
                }
            } catch (PSQLException end) {
                boolean told = "57P01".equals(end.getSQLState()) && end.getServerErrorMessage().getHint().contains("new token");
                boolean slow = "28000".equals(end.getSQLState()) && end.getMessage().contains("token expired");
                check(told || slow || end.getSQLState().startsWith("08"), end.getSQLState() + " " + end);
                ends++;
            }
        }
        try (Connection session = open()) {
            check(done > 1 && count(session, "expiry") == done, done);
        }
        System.out.println("expiry " + done);
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, Step> steps = new LinkedHashMap<>();
        steps.put("connect", PgjdbcMatrix::connect);
        steps.put("refused", PgjdbcMatrix::refused);
        steps.put("prepared", PgjdbcMatrix::prepared);
        steps.put("pipeline", PgjdbcMatrix::pipeline);
        steps.put("copy", PgjdbcMatrix::copy);
        steps.put("large", PgjdbcMatrix::large);
        steps.put("stream", PgjdbcMatrix::stream);
        steps.put("cancel", PgjdbcMatrix::cancel);
        steps.put("recovery", PgjdbcMatrix::recovery);
        steps.put("transactions", PgjdbcMatrix::transactions);
        steps.put("expiry", PgjdbcMatrix::expiry);
        for (Map.Entry<String, Step> step : steps.entrySet()) {
            long started = System.nanoTime();
            step.getValue().run();
            System.out.printf("%s: good (%.2f s)%n", step.getKey(), (System.nanoTime() - started) / 1e9);
        }
    }
}
