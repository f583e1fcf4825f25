package main

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func buckets(nc *nats.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 6*limit)
	defer cancel()
	js := must(jetstream.New(nc))
	keyValue(ctx, js)
	objects(ctx, js)
}

func keyValue(ctx context.Context, js jetstream.JetStream) {
	kv := must(js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "bucket", History: 5}))
	check("put", must(kv.PutString(ctx, "a", "1")), uint64(1))
	entry := must(kv.Get(ctx, "a"))
	check("get", []any{entry.Key(), string(entry.Value()), entry.Revision()}, []any{"a", "1", uint64(1)})
	_, err := kv.Get(ctx, "b")
	check("unknown", errors.Is(err, jetstream.ErrKeyNotFound), true)
	check("update", must(kv.Update(ctx, "a", []byte("2"), 1)), uint64(2))
	_, err = kv.Update(ctx, "a", []byte("3"), 1)
	check("stale update", errorCode(err), jetstream.JSErrCodeStreamWrongLastSequence)
	check("create", must(kv.Create(ctx, "b.c", []byte("new"))), uint64(3))
	_, err = kv.Create(ctx, "b.c", nil)
	check("create again", errors.Is(err, jetstream.ErrKeyExists), true)
	check("old revision", string(must(kv.GetRevision(ctx, "a", 1)).Value()), "1")
	watcher := must(kv.WatchAll(ctx))
	var seen []string
	for entry := range watcher.Updates() {
		if entry == nil {
			break
		}
		seen = append(seen, entry.Key())
	}
	check("watch begins with the state", seen, []string{"a", "b.c"})
	ok(kv.Delete(ctx, "a", jetstream.LastRevision(2)))
	check("watch goes on", (<-watcher.Updates()).Operation().String(), "KeyValueDeleteOp")
	ok(watcher.Stop())
	_, err = kv.Get(ctx, "a")
	check("deleted", errors.Is(err, jetstream.ErrKeyNotFound), true)
	check("history", len(must(kv.History(ctx, "a"))), 3)
	check("keys", must(kv.Keys(ctx)), []string{"b.c"})
	lister := must(kv.ListKeysFiltered(ctx, "b.>"))
	var keys []string
	for key := range lister.Keys() {
		keys = append(keys, key)
	}
	check("filtered keys", keys, []string{"b.c"})
	ok(kv.Purge(ctx, "b.c"))
	_, err = kv.Keys(ctx)
	check("no keys", errors.Is(err, jetstream.ErrNoKeysFound), true)
	ok(kv.PurgeDeletes(ctx, jetstream.DeleteMarkersOlderThan(-1)))
	status := must(kv.Status(ctx))
	check("status", []any{status.Bucket(), status.History(), status.Values()}, []any{"bucket", int64(5), uint64(0)})
	ok(js.DeleteKeyValue(ctx, "bucket"))
	_, err = js.KeyValue(ctx, "bucket")
	check("deleted bucket", errors.Is(err, jetstream.ErrBucketNotFound), true)
}

func objects(ctx context.Context, js jetstream.JetStream) {
	store := must(js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: "files"}))
	large := make([]byte, 3_000_017)
	for n, state := 0, uint32(1); n < len(large); n++ {
		state = state*1103515245 + 12345
		large[n] = byte(state >> 24)
	}
	info := must(store.PutBytes(ctx, "large", large))
	check("put", []any{info.Size, info.Chunks}, []any{uint64(len(large)), uint32(23)})
	check("get", bytes.Equal(must(store.GetBytes(ctx, "large")), large), true)
	watcher := must(store.Watch(ctx, jetstream.UpdatesOnly()))
	must(store.PutString(ctx, "small", "hello"))
	for update := range watcher.Updates() {
		if update != nil {
			check("watch", update.Name, "small")
			break
		}
	}
	ok(watcher.Stop())
	must(store.AddLink(ctx, "link", must(store.GetInfo(ctx, "small"))))
	check("link", must(store.GetString(ctx, "link")), "hello")
	var names []string
	for _, info := range must(store.List(ctx)) {
		names = append(names, info.Name)
	}
	slices.Sort(names)
	check("list", names, []string{"large", "link", "small"})
	ok(store.UpdateMeta(ctx, "small", jetstream.ObjectMeta{Name: "renamed", Description: "renamed"}))
	check("renamed", must(store.GetString(ctx, "renamed")), "hello")
	ok(store.Delete(ctx, "large"))
	_, err := store.GetBytes(ctx, "large")
	check("deleted", errors.Is(err, jetstream.ErrObjectNotFound), true)
	ok(store.Seal(ctx))
	ok(js.DeleteObjectStore(ctx, "files"))
}
