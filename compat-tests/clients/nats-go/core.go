package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/nats-io/nats.go"
)

func core(nc *nats.Conn) {
	logins()
	subjects(nc)
	queues(nc)
	requests(nc)
	sizes(nc)
	draining(nc)
}

func logins() {
	wrong := nats.UserInfo(os.Getenv("NATS_USER"), "wrong")
	_, err := nats.Connect(os.Getenv("NATS_URL"), append(transport(), wrong)...)
	check("wrong password", errors.Is(err, nats.ErrAuthorization), true)
	_, err = nats.Connect(os.Getenv("NATS_URL"), transport()...)
	check("no password", errors.Is(err, nats.ErrAuthorization), true)
}

func subjects(nc *nats.Conn) {
	star := must(nc.SubscribeSync("w.*.b"))
	tail := must(nc.SubscribeSync("w.>"))
	for _, subject := range []string{"w.a.b", "w.a", "w.x.b", "other"} {
		ok(nc.Publish(subject, []byte(subject)))
	}
	for label, sub := range map[string]*nats.Subscription{"star": star, "tail": tail} {
		expected := map[string][]string{"star": {"w.a.b", "w.x.b"}, "tail": {"w.a.b", "w.a", "w.x.b"}}[label]
		for _, subject := range expected {
			if msg := must(sub.NextMsg(limit)); msg.Subject != subject {
				panic(fmt.Sprintf("%s: saw %s, expected %s", label, msg.Subject, subject))
			}
		}
		ok(sub.Unsubscribe())
	}
	limited := must(nc.SubscribeSync("limited"))
	ok(limited.AutoUnsubscribe(2))
	for n := 0; n < 4; n++ {
		ok(nc.Publish("limited", nil))
	}
	must(limited.NextMsg(limit))
	must(limited.NextMsg(limit))
	_, err := limited.NextMsg(limit)
	check("unsubscribed after two", errors.Is(err, nats.ErrMaxMessages), true)
}

func queues(nc *nats.Conn) {
	other := connect()
	defer other.Close()
	var all sync.WaitGroup
	all.Add(90)
	for _, connection := range []*nats.Conn{nc, nc, other} {
		must(connection.QueueSubscribe("work", "group", func(*nats.Msg) { all.Done() }))
		ok(connection.Flush())
	}
	for n := 0; n < 90; n++ {
		ok(nc.Publish("work", nil))
	}
	all.Wait()
	note("queue group", 90)
}

func requests(nc *nats.Conn) {
	must(nc.Subscribe("echo", func(msg *nats.Msg) {
		reply := nats.NewMsg(msg.Reply)
		reply.Data = msg.Data
		reply.Header.Set("Seen", msg.Header.Get("Key"))
		reply.Header.Add("Twice", "1")
		reply.Header.Add("Twice", "2")
		ok(msg.RespondMsg(reply))
	}))
	request := nats.NewMsg("echo")
	request.Data = []byte("hello")
	request.Header.Set("Key", "value")
	reply := must(nc.RequestMsg(request, limit))
	check("reply", string(reply.Data), "hello")
	check("headers", []any{reply.Header.Get("Seen"), reply.Header.Values("Twice")}, []any{"value", []string{"1", "2"}})
	_, err := nc.Request("nobody", nil, limit)
	check("nobody there", errors.Is(err, nats.ErrNoResponders), true)
}

func sizes(nc *nats.Conn) {
	check("max payload", nc.MaxPayload(), int64(1048576))
	sub := must(nc.SubscribeSync("large"))
	large := bytes.Repeat([]byte{7}, 1048576)
	ok(nc.Publish("large", large))
	check("largest", bytes.Equal(must(sub.NextMsg(limit)).Data, large), true)
	check("too large", errors.Is(nc.Publish("large", append(large, 7)), nats.ErrMaxPayload), true)
	must(nc.RTT())
}

func draining(nc *nats.Conn) {
	closed := make(chan struct{})
	other := connect(nats.NoEcho(), nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
	seen := 0
	must(other.Subscribe("drain", func(*nats.Msg) { seen++ }))
	ok(other.Flush())
	ok(other.Publish("drain", []byte("own")))
	ok(other.Flush())
	for n := 0; n < 50; n++ {
		ok(nc.Publish("drain", nil))
	}
	ok(nc.Flush())
	ok(other.Flush())
	ok(other.Drain())
	<-closed
	check("drained, without its own", seen, 50)
}
