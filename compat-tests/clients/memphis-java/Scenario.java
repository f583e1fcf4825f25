// memphis.java against a running server: every call of the SDK that reaches the server. It makes no
// stations and no schemas, gives up no message and destroys nothing; what it cannot ask for is asked
// of the broker's own interface, over a plain connection.
import dev.memphis.sdk.ClientOptions;
import dev.memphis.sdk.MemphisConnection;
import dev.memphis.sdk.MemphisMessage;
import dev.memphis.sdk.consumer.ConsumerOptions;
import dev.memphis.sdk.consumer.MemphisAsyncConsumer;
import dev.memphis.sdk.consumer.MemphisSyncConsumer;
import dev.memphis.sdk.producer.MemphisProducer;
import dev.memphis.sdk.producer.ProducerOptions;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.nats.client.Connection;
import io.nats.client.Nats;
import io.nats.client.Options;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.ConcurrentLinkedQueue;

public class Scenario {
    private static final String HOST = System.getenv("MEMPHIS_HOST");
    private static final int PORT = Integer.parseInt(System.getenv("MEMPHIS_PORT"));
    private static final String USER = System.getenv("NATS_USER");
    private static final String PASSWORD = System.getenv("NATS_PASSWORD");

    interface Probe {
        boolean isSo() throws Exception;
    }

    static void check(String label, Object seen, Object expected) {
        System.out.println(label + ": " + seen);
        if (!Objects.equals(seen, expected)) {
            throw new AssertionError(label + ": saw " + seen + ", expected " + expected);
        }
    }

    static void eventually(String label, Probe probe) throws Exception {
        long end = System.nanoTime() + Duration.ofSeconds(20).toNanos();
        while (!probe.isSo()) {
            if (System.nanoTime() > end) {
                throw new AssertionError(label + ": not within 20 s");
            }
            Thread.sleep(20);
        }
    }

    static ClientOptions.Builder options() {
        return new ClientOptions.Builder().host(HOST).port(PORT).username(USER).password(PASSWORD)
            .timeout(Duration.ofSeconds(20)).maxReconnect(-1).reconnectInterval(Duration.ofMillis(100)).maxWaitTime(Duration.ofSeconds(1));
    }

    static MemphisConnection connect(ClientOptions.Builder options) throws Exception {
        return new MemphisConnection(options.build());
    }

    static JsonNode ask(Connection nc, String what, String body) throws Exception {
        var reply = nc.request("$MENES.API." + what, body.getBytes(), Duration.ofSeconds(10));
        JsonNode answer = new ObjectMapper().readTree(reply.getData());
        if (answer.has("error")) {
            throw new AssertionError(what + ": " + answer);
        }
        return answer;
    }

    static MemphisProducer producer(MemphisConnection conn, String station, String name) throws Exception {
        return conn.createProducer(new ProducerOptions.Builder().stationName(station).producerName(name).build());
    }

    static ConsumerOptions.Builder consumer(String station, String name, String group) {
        return new ConsumerOptions.Builder().stationName(station).consumerName(name).consumersGroup(group);
    }

    static List<String> taken(List<MemphisMessage> messages) {
        List<String> texts = new ArrayList<>();
        for (MemphisMessage message : messages) {
            texts.add(new String(message.getData()));
            message.ack();
        }
        return texts;
    }

    static void logins(Connection nc) throws Exception {
        boolean isRefused = false;
        try {
            connect(options().password("wrong"));
        } catch (Exception error) {
            isRefused = true;
            System.out.println("a wrong password: " + error.getMessage());
        }
        check("a wrong password is refused", isRefused, true);
        String token = ask(nc, "USER.CREATE", "{\"user\": \"duke\", \"password\": \"Secret-1!\", \"token\": true}").get("token").asText();
        for (var options : List.of(options().username("duke").password("Secret-1!"), options().username("duke").connectionToken(token))) {
            MemphisConnection conn = connect(options);
            check("logged in", conn.isConnected(), true);
            producer(conn, "java-logins", "p").produce("x".getBytes());
            conn.close();
        }
    }

    static void messages(MemphisConnection conn, Connection nc) throws Exception {
        ask(nc, "STATION.CREATE", "{\"station\": \"java-st\", \"partitions_number\": 3}");
        MemphisProducer producer = producer(conn, "java-st", "Prod.J");
        List<String> placed = new ArrayList<>();
        for (int n = 0; n < 4; n++) {
            var ack = producer.produce(String.valueOf(n).getBytes());
            placed.add(ack.getStream() + " " + ack.getSeqno());
        }
        check("partitions in turn", placed, List.of("java-st$1 1", "java-st$2 1", "java-st$3 1", "java-st$1 2"));
        var stored = nc.jetStreamManagement().getMessage("java-st$1", 1);
        check("who produced it", stored.getHeaders().getFirst("$memphis_producedBy"), "prod.j");
        var registered = ask(nc, "PRODUCER.LIST", "{\"station\": \"java-st\"}").get("producers").get(0);
        check("registered", registered.get("name").asText(), "prod.j");

        MemphisSyncConsumer sync = conn.createSyncConsumer(consumer("java-st", "c", "grp").build());
        check("fetched from each partition", taken(sync.fetch()), List.of("0", "3", "1", "2"));
        eventually("acknowledged", () -> {
            JsonNode group = ask(nc, "GROUP.INFO", "{\"station\": \"java-st\", \"group\": \"grp\"}");
            return group.get("lag").asInt() == 0 && group.get("in_process").asInt() == 0;
        });
        sync.destroy();

        var seen = new ConcurrentLinkedQueue<String>();
        MemphisAsyncConsumer async = conn.createAsyncConsumer(consumer("java-st", "d", "calls").build(), got -> seen.addAll(taken(got)));
        async.start();
        eventually("called with all of them", () -> seen.size() == 4);
        List<String> sorted = new ArrayList<>(seen);
        Collections.sort(sorted);
        check("once each", sorted, List.of("0", "1", "2", "3"));
        async.stop();

        MemphisSyncConsumer last = conn.createSyncConsumer(consumer("java-st", "e", "last").lastMessages(1).build());
        List<String> newest = taken(last.fetch());
        check("the last of each partition", newest, List.of("3", "1", "2"));
        last.destroy();
    }

    /** With what is left unacknowledged: delivered again, and then a dead letter that is resent. */
    static void deadLetters(MemphisConnection conn, Connection nc) throws Exception {
        producer(conn, "java-dead", "p").produce("left".getBytes());
        MemphisSyncConsumer consumer = conn.createSyncConsumer(consumer("java-dead", "c", "grp").maxAckTimeMs(1000).maxMsgDeliveries(2).build());
        List<String> got = new ArrayList<>();
        eventually("delivered twice", () -> {
            for (MemphisMessage message : consumer.fetch()) {
                got.add(new String(message.getData()));
            }
            return got.size() == 2;
        });
        check("the same", got, List.of("left", "left"));
        eventually("a dead letter", () -> ask(nc, "DEAD_LETTER.LIST", "{\"station\": \"java-dead\"}").get("dead_letters").size() == 1);
        JsonNode letter = ask(nc, "DEAD_LETTER.LIST", "{\"station\": \"java-dead\"}").get("dead_letters").get(0);
        check("after two deliveries", letter.get("deliveries").asInt(), 2);
        consumer.destroy();
    }

    static void reconnects(MemphisConnection conn) throws Exception {
        MemphisProducer producer = producer(conn, "java-again", "p");
        MemphisSyncConsumer consumer = conn.createSyncConsumer(consumer("java-again", "c", "g").build());
        producer.produce("before".getBytes());
        check("before", taken(consumer.fetch()), List.of("before"));
        System.out.println("ready");
        System.in.read();
        eventually("connected again", conn::isConnected);
        eventually("produced again", () -> {
            try {
                producer.produce("after".getBytes());
                return true;
            } catch (Exception error) {
                return false;
            }
        });
        List<String> got = new ArrayList<>();
        eventually("and consumed", () -> {
            got.addAll(taken(consumer.fetch()));
            return !got.isEmpty();
        });
        check("what came", got.get(0), "after");
        consumer.destroy();
    }

    public static void main(String[] arguments) throws Exception {
        Connection nc = Nats.connect(new Options.Builder().server("nats://" + HOST + ":" + PORT).userInfo(USER, PASSWORD).maxReconnects(-1).reconnectWait(Duration.ofMillis(100)).connectionTimeout(Duration.ofSeconds(20)).build());
        MemphisConnection conn = connect(options());
        switch (arguments[0]) {
            case "logins" -> logins(nc);
            case "messages" -> messages(conn, nc);
            case "dead-letters" -> deadLetters(conn, nc);
            case "reconnects" -> reconnects(conn);
            default -> throw new AssertionError("no scenario " + arguments[0]);
        }
        conn.close();
        nc.close();
        // The SDK leaves threads behind that nobody ends.
        System.exit(0);
    }
}
