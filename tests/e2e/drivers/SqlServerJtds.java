// jTDS (TDS 7.1, passwords only) through the steps of sqlserver_steps.py, whose environment and results these are. Arguments:
// names of steps.

import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.sql.CallableStatement;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Types;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;

public class SqlServerJtds {
    static final String NAME = env("GATEPOST_TEST_NAME", null);
    static final int ROWS = Integer.parseInt(env("GATEPOST_TEST_ROWS", "100000"));
    static final int BIG = Integer.parseInt(env("GATEPOST_TEST_BIG", "" + 20 * 1024 * 1024));
    static final int BULK = 10_000;
    static final String INSERT = "INSERT INTO dbo.parcels (driver, step, n, body, raw) VALUES (?, ?, ?, ?, ?)";
    static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    static String env(String name, String otherwise) {
        String value = System.getenv(name);
        return value != null ? value : otherwise;
    }

    /** The driver has no way to do this. */
    static class Cannot extends RuntimeException {
        Cannot(String why) {
            super("this driver " + why);
        }
    }

    /** What the server or the driver said, when that is the step's result. */
    static class Told extends RuntimeException {
        final List<Object> values;
        final SQLException error;

        Told(SQLException error, Object... values) {
            this.values = Arrays.asList(values);
            this.error = error;
        }
    }

    interface Act {
        void run() throws Exception;
    }

    interface Step {
        List<Object> run() throws Exception;
    }

    static Connection open() throws SQLException {
        if (env("GATEPOST_TEST_TLS", "7.4").equals("strict")) throw new Cannot("has no strict encryption");
        if (env("GATEPOST_TEST_TOKEN", null) != null) throw new Cannot("has no access tokens");
        String url = "jdbc:jtds:sqlserver://" + env("GATEPOST_TEST_HOST", null) + ":" + env("GATEPOST_TEST_PORT", null)
            + "/" + env("GATEPOST_TEST_DATABASE", null);
        Properties more = new Properties();
        more.put("user", env("GATEPOST_TEST_USER", ""));
        more.put("password", env("GATEPOST_TEST_PASSWORD", ""));
        more.put("appName", NAME);
        // TLS from the login on, and a certificate that the JVM trusts. It does not compare the host's name.
        more.put("ssl", "authenticate");
        more.put("loginTimeout", "30");
        return DriverManager.getConnection(url, more);
    }

    /** A file of the JVM's own kind with the one authority in it. */
    static void trust() throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        try (FileInputStream file = new FileInputStream(env("GATEPOST_TEST_CA", null))) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        Path kept = Files.createTempFile("trust", ".p12");
        kept.toFile().deleteOnExit();
        try (var file = Files.newOutputStream(kept)) {
            store.store(file, "changeit".toCharArray());
        }
        System.setProperty("javax.net.ssl.trustStore", kept.toString());
        System.setProperty("javax.net.ssl.trustStorePassword", "changeit");
        // Its way of TLS does not follow a record that was split off against BEAST; see its FAQ.
        System.setProperty("jsse.enableCBCProtection", "false");
    }

    static SQLException raises(Act act) throws Exception {
        try {
            act.run();
        } catch (SQLException error) {
            return error;
        }
        throw new AssertionError("no error");
    }

    static void batch(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(sql);
        }
    }

    static List<Object> row(Connection connection, String sql, Object... parameters) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int i = 0; i < parameters.length; i++) statement.setObject(i + 1, parameters[i]);
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                return values(rows);
            }
        }
    }

    static List<Object> plain(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            rows.next();
            return values(rows);
        }
    }

    static List<Object> values(ResultSet rows) throws SQLException {
        List<Object> values = new ArrayList<>();
        for (int i = 1; i <= rows.getMetaData().getColumnCount(); i++) values.add(rows.getObject(i));
        return values;
    }

    static void insert(Connection connection, String step, int n) throws SQLException {
        insert(connection, step, n, null, null);
    }

    static void insert(Connection connection, String step, int n, String body, byte[] raw) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(INSERT)) {
            fill(statement, step, n, body, raw);
            statement.executeUpdate();
        }
    }

    static void fill(PreparedStatement statement, String step, int n, String body, byte[] raw) throws SQLException {
        statement.setString(1, NAME);
        statement.setString(2, step);
        statement.setInt(3, n);
        statement.setString(4, body);
        statement.setBytes(5, raw);
    }

    static int count(Connection connection, String step) throws SQLException {
        String query = "SELECT COUNT(*) FROM dbo.parcels WHERE driver = ? AND step = ?";
        return ((Number) row(connection, query, NAME, step).get(0)).intValue();
    }

    static void same(List<Object> values, Object... expected) {
        if (!values.equals(Arrays.asList(expected))) throw new AssertionError("unexpected: " + values);
    }

    static List<Object> connect() throws SQLException {
        try (Connection connection = open()) {
            List<Object> values = plain(connection, "SELECT 42, N'hi äöü 😀', @@SPID");
            same(values.subList(0, 2), 42, "hi äöü 😀");
            return values;
        }
    }

    static List<Object> refused() throws Exception {
        throw new Told(raises(() -> open().close()));
    }

    static List<Object> ddl() throws SQLException {
        String table = "dbo.ddl_" + NAME.replaceAll("[^A-Za-z0-9]", "_");
        try (Connection connection = open()) {
            batch(connection, "CREATE TABLE " + table + " (n int NOT NULL PRIMARY KEY, body nvarchar(50) NULL)");
            batch(connection, "INSERT INTO " + table + " VALUES (1, N'äöü')");
            List<Object> values = plain(connection, "SELECT n, body FROM " + table);
            batch(connection, "DROP TABLE " + table);
            same(values, 1, "äöü");
            return values;
        }
    }

    static List<Object> prepared() throws SQLException {
        try (Connection connection = open()) {
            connection.setAutoCommit(false);
            try (PreparedStatement statement = connection.prepareStatement(INSERT)) {
                for (int n = 1; n <= 100; n++) {
                    fill(statement, "prepared", n, "text " + n + " äöü 😀", new byte[] {0, (byte) 255, (byte) n});
                    statement.executeUpdate();
                }
            }
            connection.commit();
            String query = "SELECT CAST(body AS nvarchar(4000)) FROM dbo.parcels WHERE driver = ? AND step = 'prepared' AND n = 100";
            same(row(connection, query, NAME), "text 100 äöü 😀");
            return List.of(count(connection, "prepared"));
        }
    }

    static List<Object> rollback() throws SQLException {
        try (Connection connection = open()) {
            connection.setAutoCommit(false);
            insert(connection, "rollback", 1);
            int within = count(connection, "rollback");
            connection.rollback();
            return List.of(within, count(connection, "rollback"));
        }
    }

    static List<Object> procedure() throws SQLException {
        try (Connection connection = open()) {
            List<Object> values = new ArrayList<>();
            try (CallableStatement call = connection.prepareCall("{? = call dbo.ship(?, ?, ?)}")) {
                call.registerOutParameter(1, Types.INTEGER);
                call.setString(2, NAME);
                call.setInt(3, 21);
                call.registerOutParameter(4, Types.INTEGER);
                call.execute();
                values.add(call.getInt(4));
                values.add(call.getInt(1));
            }
            values.add(count(connection, "procedure"));
            same(values, 42, 7, 1);
            return values;
        }
    }

    static List<Object> rows() throws SQLException {
        int count = 0;
        long sum = 0;
        try (Connection connection = open(); Statement statement = connection.createStatement()) {
            String query = "SELECT n, CAST(CONCAT(N'row ', n) AS nvarchar(40)) FROM dbo.numbers WHERE n < " + ROWS;
            try (ResultSet rows = statement.executeQuery(query)) {
                while (rows.next()) {
                    count++;
                    sum += rows.getLong(1);
                }
            }
        }
        if (sum != (long) ROWS * (ROWS - 1) / 2) throw new AssertionError("sum " + sum);
        return List.of(count);
    }

    static List<Object> big() throws SQLException {
        byte[] raw = new byte[BIG];
        for (int i = 0; i < BIG; i++) raw[i] = (byte) i;
        String body = "xäöü".repeat(BIG / 8);
        try (Connection connection = open()) {
            insert(connection, "big", 1, body, raw);
            String query = "SELECT DATALENGTH(raw), DATALENGTH(body), raw, body FROM dbo.parcels WHERE driver = ? AND step = 'big'";
            try (PreparedStatement statement = connection.prepareStatement(query)) {
                statement.setString(1, NAME);
                try (ResultSet rows = statement.executeQuery()) {
                    rows.next();
                    List<Object> lengths = List.of(rows.getLong(1), rows.getLong(2));
                    if (!Arrays.equals(rows.getBytes(3), raw)) throw new AssertionError("other bytes");
                    if (!rows.getString(4).equals(body)) throw new AssertionError("other text");
                    return lengths;
                }
            }
        }
    }

    /** It has no bulk load; many rows go as a JDBC batch. */
    static List<Object> bulk() throws SQLException {
        try (Connection connection = open()) {
            connection.setAutoCommit(false);
            try (PreparedStatement statement = connection.prepareStatement(INSERT)) {
                for (int n = 1; n <= BULK; n++) {
                    fill(statement, "bulk", n, "row " + n + " äöü", null);
                    statement.addBatch();
                    if (n % 1000 == 0) statement.executeBatch();
                }
            }
            connection.commit();
            return List.of(count(connection, "bulk"));
        }
    }

    static List<Object> cancel() throws Exception {
        try (Connection connection = open()) {
            long started = System.nanoTime();
            SQLException error = raises(() -> {
                try (Statement statement = connection.createStatement()) {
                    Thread canceler = new Thread(() -> {
                        try {
                            Thread.sleep(2000);
                            statement.cancel();
                        } catch (Exception late) {
                            throw new IllegalStateException(late);
                        }
                    });
                    canceler.start();
                    statement.execute(System.getenv("GATEPOST_TEST_LONG"));
                    canceler.join();
                }
            });
            long waited = (System.nanoTime() - started) / 1_000_000;
            throw new Told(error, plain(connection, "SELECT 7").get(0), waited);
        }
    }

    static List<Object> recovery() throws Exception {
        try (Connection connection = open()) {
            SQLException syntax = raises(() -> batch(connection, "SELECT 1 +"));
            insert(connection, "recovery", 1);
            SQLException twice = raises(() -> insert(connection, "recovery", 1));
            insert(connection, "recovery", 2);
            return List.of(syntax.getErrorCode(), twice.getErrorCode(), count(connection, "recovery"));
        }
    }

    static List<Object> transactions() throws SQLException {
        try (Connection connection = open()) {
            connection.setAutoCommit(false);
            insert(connection, "transactions", 1);
            Savepoint here = connection.setSavepoint("here");
            insert(connection, "transactions", 2);
            connection.rollback(here);
            insert(connection, "transactions", 3);
            connection.commit();
            String query = "SELECT COUNT(*), SUM(n) FROM dbo.parcels WHERE driver = ? AND step = 'transactions'";
            List<Object> values = row(connection, query, NAME);
            same(values, 2, 4);
            return values;
        }
    }

    static List<Object> error() throws Exception {
        try (Connection connection = open()) {
            SQLException zero = raises(() -> plain(connection, "SELECT 1 / 0"));
            SQLException stated = raises(() -> batch(connection, "THROW 50001, N'stated äöü', 1;"));
            throw new Told(stated, zero.getErrorCode(), plain(connection, "SELECT 7").get(0));
        }
    }

    static List<Object> idle() throws Exception {
        try (Connection connection = open()) {
            tell("idle", true, List.of("ready"), null, null);
            String line = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8)).readLine();
            return plain(connection, line == null || line.isBlank() ? "SELECT 43" : line);
        }
    }

    static List<Object> reset() {
        throw new Cannot("has no pool");
    }

    static List<Object> correlation() throws SQLException {
        String given = "correlation of " + NAME;
        try (Connection connection = open()) {
            batch(connection, "EXEC sp_set_session_context N'correlation_id', N'" + given + "'");
            insert(connection, "correlation", 1, given, null);
            return List.of(given);
        }
    }

    static Step step(String name) {
        return switch (name) {
            case "connect" -> SqlServerJtds::connect;
            case "refused" -> SqlServerJtds::refused;
            case "ddl" -> SqlServerJtds::ddl;
            case "prepared" -> SqlServerJtds::prepared;
            case "rollback" -> SqlServerJtds::rollback;
            case "procedure" -> SqlServerJtds::procedure;
            case "rows" -> SqlServerJtds::rows;
            case "big" -> SqlServerJtds::big;
            case "bulk" -> SqlServerJtds::bulk;
            case "cancel" -> SqlServerJtds::cancel;
            case "recovery" -> SqlServerJtds::recovery;
            case "transactions" -> SqlServerJtds::transactions;
            case "error" -> SqlServerJtds::error;
            case "idle" -> SqlServerJtds::idle;
            case "reset" -> SqlServerJtds::reset;
            case "correlation" -> SqlServerJtds::correlation;
            default -> throw new IllegalArgumentException(name);
        };
    }

    static String json(Object value) {
        if (value == null || value instanceof Number || value instanceof Boolean) return String.valueOf(value);
        StringBuilder text = new StringBuilder("\"");
        value.toString().chars().forEach(c -> {
            if (c == '"' || c == '\\') text.append('\\').append((char) c);
            else if (c < ' ') text.append(String.format("\\u%04x", c));
            else text.append((char) c);
        });
        return text.append('"').toString();
    }

    static void tell(String step, boolean ok, List<Object> values, Integer number, String text) {
        List<String> each = values.stream().map(SqlServerJtds::json).toList();
        OUT.printf(
            "{\"step\": %s, \"ok\": %s, \"values\": [%s], \"error_number\": %s, \"error_text\": %s}%n",
            json(step), ok, String.join(", ", each), number, json(text));
    }

    static void tell(String step, boolean ok, List<Object> values, Throwable error) {
        Integer number = error instanceof SQLException told && told.getErrorCode() != 0 ? told.getErrorCode() : null;
        StringBuilder text = new StringBuilder();
        for (Throwable it = error; it != null; it = it.getCause()) text.append(text.isEmpty() ? "" : "\n").append(it);
        tell(step, ok, values, number, text.toString());
    }

    public static void main(String[] names) throws Exception {
        trust();
        // Debian's jar does not announce it.
        Class.forName("net.sourceforge.jtds.jdbc.Driver");
        for (String name : names) {
            try {
                tell(name, true, step(name).run(), null, null);
            } catch (Told result) {
                tell(name, true, result.values, result.error);
            } catch (Cannot why) {
                tell(name, false, List.of(), null, why.getMessage());
            } catch (Exception | AssertionError error) {
                tell(name, false, List.of(), error);
            }
        }
    }
}
