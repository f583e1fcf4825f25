package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func streams(nc *nats.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*limit)
	defer cancel()
	js := must(jetstream.New(nc))
	publishing(ctx, js)
	managing(ctx, js)
	pulling(ctx, js)
	consuming(ctx, js)
	pushing(ctx, nc, js)
	legacy(nc)
}

// errorCode is the JetStream error code of an error, 0 if it has none.
func errorCode(err error) jetstream.ErrorCode {
	var api *jetstream.APIError
	var js jetstream.JetStreamError
	switch {
	case errors.As(err, &api):
		return api.ErrorCode
	case errors.As(err, &js) && js.APIError() != nil:
		return js.APIError().ErrorCode
	}
	return 0
}

func fill(ctx context.Context, js jetstream.JetStream, name string, count int) jetstream.Stream {
	config := jetstream.StreamConfig{Name: name, Subjects: []string{name + ".*"}, AllowDirect: true}
	stream := must(js.CreateStream(ctx, config))
	for n := 1; n <= count; n++ {
		must(js.Publish(ctx, fmt.Sprintf("%s.%d", name, n%2), []byte(strconv.Itoa(n))))
	}
	return stream
}

func number(msg jetstream.Msg) int { return must(strconv.Atoi(string(msg.Data()))) }

func publishing(ctx context.Context, js jetstream.JetStream) {
	fill(ctx, js, "PUB", 0)
	ack := must(js.Publish(ctx, "PUB.a", []byte("1")))
	check("ack", []any{ack.Stream, ack.Sequence, ack.Duplicate}, []any{"PUB", uint64(1), false})
	must(js.Publish(ctx, "PUB.a", []byte("2"), jetstream.WithMsgID("id")))
	again := must(js.Publish(ctx, "PUB.a", []byte("2"), jetstream.WithMsgID("id")))
	check("duplicate", []any{again.Sequence, again.Duplicate}, []any{uint64(2), true})
	_, err := js.Publish(ctx, "PUB.a", nil, jetstream.WithExpectLastSequence(9))
	check("wrong last sequence", errorCode(err), jetstream.JSErrCodeStreamWrongLastSequence)
	must(js.Publish(ctx, "PUB.a", nil, jetstream.WithExpectLastSequence(2), jetstream.WithExpectStream("PUB")))
	_, err = js.Publish(ctx, "PUB.b", nil, jetstream.WithExpectLastSequencePerSubject(7))
	check("wrong last subject sequence", errorCode(err), jetstream.JSErrCodeStreamWrongLastSequence)
	_, err = js.Publish(ctx, "elsewhere", nil, jetstream.WithRetryAttempts(0))
	check("nobody listens", errors.Is(err, jetstream.ErrNoStreamResponse), true)
	var futures []jetstream.PubAckFuture
	for n := 0; n < 1000; n++ {
		futures = append(futures, must(js.PublishAsync("PUB.b", []byte(strconv.Itoa(n)))))
	}
	<-js.PublishAsyncComplete()
	inOrder := true
	for n, future := range futures {
		ack := <-future.Ok()
		inOrder = inOrder && ack.Sequence == uint64(4+n)
	}
	check("thousand acks in order", inOrder, true)
}

func managing(ctx context.Context, js jetstream.JetStream) {
	stream := fill(ctx, js, "READ", 6)
	_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "READ", Subjects: []string{"other"}})
	check("other config", errors.Is(err, jetstream.ErrStreamNameAlreadyInUse), true)
	var names []string
	for name := range js.StreamNames(ctx).Name() {
		names = append(names, name)
	}
	slices.Sort(names)
	check("names", names, []string{"PUB", "READ"})
	check("by subject", must(js.StreamNameBySubject(ctx, "READ.1")), "READ")
	check("by sequence", string(must(stream.GetMsg(ctx, 3)).Data), "3")
	check("last of a subject", must(stream.GetLastMsgForSubject(ctx, "READ.0")).Sequence, uint64(6))
	next := must(stream.GetMsg(ctx, 3, jetstream.WithGetMsgSubject("READ.0")))
	check("next of a subject", next.Sequence, uint64(4))
	_, err = stream.GetMsg(ctx, 99)
	check("beyond the end", errors.Is(err, jetstream.ErrMsgNotFound), true)
	ok(stream.DeleteMsg(ctx, 3))
	ok(stream.SecureDeleteMsg(ctx, 5))
	info := must(stream.Info(ctx, jetstream.WithDeletedDetails(true), jetstream.WithSubjectFilter(">")))
	check("deleted", info.State.Deleted, []uint64{3, 5})
	check("subjects", info.State.Subjects, map[string]uint64{"READ.0": 3, "READ.1": 1})
	ok(stream.Purge(ctx, jetstream.WithPurgeSubject("READ.0"), jetstream.WithPurgeKeep(1)))
	check("purged", must(stream.Info(ctx)).State.Msgs, uint64(2))
	updated := must(js.UpdateStream(ctx, jetstream.StreamConfig{Name: "READ", Subjects: []string{"READ.*"}, MaxMsgs: 1, AllowDirect: true}))
	check("lowered limit", updated.CachedInfo().State.Msgs, uint64(1))
	account := must(js.AccountInfo(ctx))
	check("account", []int{account.Streams, account.Consumers}, []int{2, 0})
	ok(js.DeleteStream(ctx, "READ"))
	_, err = js.Stream(ctx, "READ")
	check("deleted stream", errors.Is(err, jetstream.ErrStreamNotFound), true)
}

func pulling(ctx context.Context, js jetstream.JetStream) {
	stream := fill(ctx, js, "PULL", 8)
	consumer := must(stream.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "d", AckPolicy: jetstream.AckExplicitPolicy, AckWait: limit}))
	_, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "d", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 2 * limit})
	check("other consumer config", errors.Is(err, jetstream.ErrConsumerExists), true)
	// All are handed out, so that only what is redelivered can come again.
	var msgs []jetstream.Msg
	for msg := range must(consumer.Fetch(8, jetstream.FetchMaxWait(limit))).Messages() {
		msgs = append(msgs, msg)
	}
	meta := must(msgs[1].Metadata())
	check("metadata", []any{meta.Stream, meta.Consumer, meta.Sequence.Stream, meta.NumDelivered, meta.NumPending}, []any{"PULL", "d", uint64(2), uint64(1), uint64(6)})
	ok(msgs[0].DoubleAck(ctx))
	ok(msgs[1].Nak())
	again := must(consumer.Next())
	check("nak", number(again), 2)
	ok(again.DoubleAck(ctx))
	started := time.Now()
	ok(msgs[2].NakWithDelay(200 * time.Millisecond))
	ok(msgs[3].TermWithReason("no use"))
	ok(msgs[4].InProgress())
	for _, msg := range msgs[4:] {
		ok(msg.DoubleAck(ctx))
	}
	again = must(consumer.Next())
	check("nak with delay", []any{number(again), time.Since(started) >= 190*time.Millisecond}, []any{3, true})
	ok(again.DoubleAck(ctx))
	eventually("settled", func() bool { return must(consumer.Info(ctx)).AckFloor.Stream == 8 })
	nothing := must(consumer.FetchNoWait(5))
	_, open := <-nothing.Messages()
	check("nothing left", []any{open, nothing.Error() == nil}, []any{false, true})
	_, err = stream.Consumer(ctx, "none")
	check("missing consumer", errors.Is(err, jetstream.ErrConsumerNotFound), true)

	limited := must(stream.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "limited", AckPolicy: jetstream.AckExplicitPolicy, MaxDeliver: 2, AckWait: 200 * time.Millisecond, FilterSubjects: []string{"PULL.0"}}))
	deliveries := map[int]int{}
	for n := 0; n < 8; n++ {
		deliveries[number(must(limited.Next(jetstream.FetchMaxWait(limit))))]++
	}
	check("each twice", deliveries, map[int]int{2: 2, 4: 2, 6: 2, 8: 2})
}

func consuming(ctx context.Context, js jetstream.JetStream) {
	stream := must(js.CreateStream(ctx, jetstream.StreamConfig{Name: "FLOW", Subjects: []string{"flow"}}))
	consumer := must(stream.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "d", AckPolicy: jetstream.AckExplicitPolicy}))
	seen := make(chan int)
	consuming := must(consumer.Consume(func(msg jetstream.Msg) {
		ok(msg.Ack())
		seen <- number(msg)
	}, jetstream.PullMaxMessages(50)))
	go func() {
		for n := 0; n < 1000; n++ {
			must(js.PublishAsync("flow", []byte(strconv.Itoa(n))))
		}
	}()
	for n := 0; n < 1000; n++ {
		if got := <-seen; got != n {
			panic(fmt.Sprintf("saw %d, expected %d", got, n))
		}
	}
	consuming.Stop()
	note("consumed in order", 1000)
	ordered := must(stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: 901}))
	messages := must(ordered.Messages())
	for n := 900; n < 1000; n++ {
		if got := number(must(messages.Next())); got != n {
			panic(fmt.Sprintf("ordered: saw %d, expected %d", got, n))
		}
	}
	messages.Stop()
	note("ordered", 100)
}

func pushing(ctx context.Context, nc *nats.Conn, js jetstream.JetStream) {
	push := must(js.CreatePushConsumer(ctx, "FLOW", jetstream.ConsumerConfig{
		Durable: "push", DeliverSubject: nc.NewInbox(), AckPolicy: jetstream.AckExplicitPolicy, FlowControl: true,
		IdleHeartbeat: 200 * time.Millisecond, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: 951,
	}))
	seen := make(chan int, 50)
	consuming := must(push.Consume(func(msg jetstream.Msg) {
		ok(msg.DoubleAck(ctx))
		seen <- number(msg)
	}))
	for n := 950; n < 1000; n++ {
		if got := <-seen; got != n {
			panic(fmt.Sprintf("push: saw %d, expected %d", got, n))
		}
	}
	consuming.Stop()
	check("push positions", must(push.Info(ctx)).AckFloor.Stream, uint64(1000))
	stream := must(js.Stream(ctx, "FLOW"))
	var names []string
	for info := range stream.ListConsumers(ctx).Info() {
		if info.Config.Durable != "" {
			names = append(names, info.Name)
		}
	}
	slices.Sort(names)
	check("consumers", names, []string{"d", "push"})
	ok(stream.DeleteConsumer(ctx, "push"))
}

// legacy uses the older JetStream interface, which many programs still do.
func legacy(nc *nats.Conn) {
	js := must(nc.JetStream())
	sub := must(js.PullSubscribe("flow", "legacy"))
	msgs := must(sub.Fetch(5, nats.MaxWait(limit)))
	check("legacy fetch", len(msgs), 5)
	for _, msg := range msgs {
		ok(msg.AckSync())
	}
	ok(sub.Unsubscribe())
	seen := make(chan string, 1000)
	push := must(js.Subscribe("flow", func(msg *nats.Msg) { seen <- string(msg.Data) }, nats.OrderedConsumer()))
	for n := 0; n < 1000; n++ {
		if got := <-seen; got != strconv.Itoa(n) {
			panic(fmt.Sprintf("legacy ordered: saw %s, expected %d", got, n))
		}
	}
	ok(push.Unsubscribe())
	note("legacy ordered", 1000)
}
