// memphis.go against a running server: every call of the SDK that reaches the server.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	memphis "github.com/memphisdev/memphis.go"
	"github.com/nats-io/nats.go"
)

func fail(format string, a ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", a...)
	os.Exit(1)
}

func must[T any](value T, err error) T {
	if err != nil {
		fail("unexpected error: %v", err)
	}
	return value
}

func check(label string, seen, expected any) {
	fmt.Printf("%s: %v\n", label, seen)
	if !reflect.DeepEqual(seen, expected) {
		fail("%s: saw %#v, expected %#v", label, seen, expected)
	}
}

func checkError(label string, err error, part string) {
	fmt.Printf("%s: %v\n", label, err)
	if err == nil || !strings.Contains(err.Error(), part) {
		fail("%s: %v does not contain %q", label, err, part)
	}
}

func eventually(label string, probe func() bool) {
	for end := time.Now().Add(10 * time.Second); !probe(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			fail("%s: not within 10 s", label)
		}
	}
}

func port() int { return must(strconv.Atoi(os.Getenv("MEMPHIS_PORT"))) }

func connect(password string) (*memphis.Conn, error) {
	return memphis.Connect(os.Getenv("MEMPHIS_HOST"), os.Getenv("NATS_USER"), memphis.Password(password), memphis.Port(port()))
}

func texts(messages []*memphis.Msg) []string {
	seen := []string{}
	for _, message := range messages {
		seen = append(seen, string(message.Data()))
	}
	return seen
}

// ask sends a request to the broker's own interface.
func ask(nc *nats.Conn, what string, body map[string]any) map[string]any {
	reply := must(nc.Request("$MENES.API."+what, must(json.Marshal(body)), 10*time.Second))
	var answer map[string]any
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		fail("%s: %v", what, err)
	}
	if answer["error"] != nil {
		fail("%s: %v", what, answer["error"])
	}
	return answer
}

func letters(nc *nats.Conn, station string) []any {
	return ask(nc, "DEAD_LETTER.LIST", map[string]any{"station": station})["dead_letters"].([]any)
}

func stations(conn *memphis.Conn) {
	_, err := connect("wrong")
	checkError("wrong password", err, "Authorization Violation")
	for range 2 {
		must(conn.CreateStation("Go.Station", memphis.PartitionsNumber(3)))
	}
	producer := must(conn.CreateProducer("go.station", "Prod.G"))
	for i := range 4 {
		headers := memphis.Headers{}
		headers.New()
		if err := headers.Add("k", "v"); err != nil {
			fail("%v", err)
		}
		err := producer.Produce([]byte(strconv.Itoa(i)), memphis.SyncProduce(), memphis.MsgHeaders(headers), memphis.MsgId(strconv.Itoa(i)))
		if err != nil {
			fail("%v", err)
		}
	}
	consumer := must(conn.CreateConsumer("go.station", "c", memphis.ConsumerGroup("Grp.G"), memphis.BatchMaxWaitTime(2*time.Second)))
	seen := [][]string{}
	for range 3 {
		messages := must(consumer.Fetch(10, false))
		seen = append(seen, texts(messages))
		for _, message := range messages {
			if err := message.Ack(); err != nil {
				fail("%v", err)
			}
		}
	}
	check("partitions in turn", seen, [][]string{{"0", "3"}, {"1"}, {"2"}})
	must(0, consumer.Destroy())
	must(0, producer.Destroy())
	station := must(conn.CreateStation("Go.Station"))
	must(0, station.Destroy())
}

func deadLetters(conn *memphis.Conn, nc *nats.Conn) {
	must(conn.CreateStation("go.dead"))
	producer := must(conn.CreateProducer("go.dead", "prod"))
	for _, text := range []string{"given up", "nacked", "delayed"} {
		must(0, producer.Produce([]byte(text), memphis.SyncProduce()))
	}
	consumer := must(conn.CreateConsumer("go.dead", "c", memphis.ConsumerGroup("Grp.G"), memphis.MaxMsgDeliveries(2), memphis.BatchMaxWaitTime(time.Second)))
	messages := must(consumer.Fetch(3, false))
	check("fetched", texts(messages), []string{"given up", "nacked", "delayed"})
	must(0, messages[0].DeadLetter("why"))
	must(0, messages[1].Nack())
	must(0, messages[2].Delay(300*time.Millisecond))
	again := []string{}
	eventually("nacked and delayed come again", func() bool {
		for _, message := range must(consumer.Fetch(3, false)) {
			again = append(again, string(message.Data()))
			must(0, message.Ack())
		}
		return len(again) == 2
	})
	check("in this order", again, []string{"nacked", "delayed"})
	eventually("the dead letter is there", func() bool { return len(letters(nc, "go.dead")) == 1 })
	letter := letters(nc, "go.dead")[0].(map[string]any)
	check("with its reason", []any{letter["reason"], letter["group"], letter["sequence"]}, []any{"why", "grp.g", 1.0})
	ask(nc, "DEAD_LETTER.RESEND", map[string]any{"station": "go.dead"})
	var resent []*memphis.Msg
	eventually("it comes again", func() bool {
		resent = must(consumer.Fetch(1, false))
		return len(resent) == 1
	})
	check("the same", texts(resent), []string{"given up"})
	must(0, resent[0].Ack())
	eventually("settled", func() bool { return len(letters(nc, "go.dead")) == 0 })
}

const person = `{"type":"object","properties":{"f":{"type":"string"}},"required":["f"]}`

const proto = `syntax = "proto3"; package shop; message Order { string id = 1; }`

func schemas(conn *memphis.Conn, nc *nats.Conn) {
	folder := os.Getenv("SCENARIO_DIR")
	write := func(name, content string) string {
		path := folder + "/" + name
		must(0, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	must(conn.CreateStation("go.schema"))
	producer := must(conn.CreateProducer("go.schema", "prod"))
	for range 2 {
		must(0, conn.CreateSchema("person", "json", write("person.json", person)))
	}
	must(0, conn.EnforceSchema("person", "go.schema"))
	eventually("the SDK checks", func() bool {
		return producer.Produce([]byte(`{"g":1}`), memphis.SyncProduce()) != nil
	})
	checkError("refused by the SDK", producer.Produce([]byte(`{"g":1}`), memphis.SyncProduce()), "Schema validation has failed")
	must(0, producer.Produce([]byte(`{"f":"x"}`), memphis.SyncProduce()))
	eventually("kept as dead letters", func() bool { return len(letters(nc, "go.schema")) >= 2 })

	// The second version is found by the name of its file.
	must(0, conn.CreateSchema("order", "protobuf", write("order.proto", proto)))
	second := strings.Replace(proto, "string id = 1;", "string id = 1; int32 n = 2;", 1)
	must(0, conn.CreateSchema("order", "protobuf", write("order.proto", second)))
	ask(nc, "SCHEMA.ACTIVATE", map[string]any{"name": "order", "version": 2})
	must(0, conn.EnforceSchema("order", "go.schema"))
	eventually("the new schema is there", func() bool {
		return producer.Produce(map[string]any{"id": "x", "n": 1}, memphis.SyncProduce()) == nil
	})
	err := producer.Produce([]byte("no message"), memphis.SyncProduce())
	checkError("refused", err, "Schema validation has failed")
	must(0, conn.DetachSchema("go.schema"))
	eventually("anything goes again", func() bool {
		return producer.Produce([]byte("no message"), memphis.SyncProduce()) == nil
	})
	checkError("no such schema", conn.EnforceSchema("missing", "go.schema"), "does not exist")
}

// logins lets stored users in: by password, by token, into another tenant.
func logins(nc *nats.Conn) {
	const password = "Secret-1!"
	token := ask(nc, "USER.CREATE", map[string]any{"user": "gopher", "password": password, "token": true})["token"].(string)
	id := int(ask(nc, "TENANT.CREATE", map[string]any{"tenant": "other"})["id"].(float64))
	ask(nc, "USER.CREATE", map[string]any{"user": "gopher", "password": password, "tenant": "other"})
	as := func(options ...memphis.Option) (*memphis.Conn, error) {
		return memphis.Connect(os.Getenv("MEMPHIS_HOST"), "gopher", append(options, memphis.Port(port()))...)
	}
	byPassword := must(as(memphis.Password(password)))
	byToken := must(as(memphis.ConnectionToken(token)))
	elsewhere := must(as(memphis.Password(password), memphis.AccountId(id)))
	for name, conn := range map[string]*memphis.Conn{"password": byPassword, "token": byToken, "tenant": elsewhere} {
		producer := must(conn.CreateProducer("logins", name))
		if err := producer.Produce([]byte(name)); err != nil {
			fail("%s: %v", name, err)
		}
	}
	check("stations of the default tenant", ask(nc, "STATUS", map[string]any{})["stations"], float64(1))
	consumer := must(elsewhere.CreateConsumer("logins", "c", memphis.ConsumerGroup("g")))
	seen := []string{}
	eventually("consumed", func() bool {
		messages, _ := consumer.Fetch(10, false)
		seen = append(seen, texts(messages)...)
		return len(seen) > 0
	})
	check("only what its tenant produced", seen, []string{"tenant"})
	_, err := as(memphis.Password("Wrong-1!"))
	checkError("wrong password", err, "uthorization")
	_, err = as(memphis.ConnectionToken("mnt_wrong"))
	checkError("wrong token", err, "uthorization")
	ask(nc, "USER.DELETE", map[string]any{"user": "gopher"})
	eventually("both connections end", func() bool { return !byPassword.IsConnected() && !byToken.IsConnected() })
	check("that of the other tenant stays", elsewhere.IsConnected(), true)
	elsewhere.Close()
}

func main() {
	conn := must(connect(os.Getenv("NATS_PASSWORD")))
	nc := must(nats.Connect(fmt.Sprintf("nats://%s:%d", os.Getenv("MEMPHIS_HOST"), port()), nats.UserInfo(os.Getenv("NATS_USER"), os.Getenv("NATS_PASSWORD"))))
	switch os.Args[1] {
	case "stations":
		stations(conn)
	case "dead-letters":
		deadLetters(conn, nc)
	case "schemas":
		schemas(conn, nc)
	case "logins":
		logins(nc)
	default:
		fail("no scenario %s", os.Args[1])
	}
	nc.Close()
	conn.Close()
}
