// Command nats-go runs one scenario of nats.go: core, jetstream or buckets against a server that is
// in NATS_URL, NATS_USER and NATS_PASSWORD; signing, operator, accounts, callout or nsc against servers it starts
// itself from the executable in SERVER.
//
// What was seen is printed, one line per
// thing; the exit code is 0 if all of it was as expected.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"time"

	"github.com/nats-io/nats.go"
)

const limit = 15 * time.Second

func main() {
	own := map[string]func(){"signing": signing, "operator": operator, "accounts": accounts, "callout": callout, "resolver": resolver, "nsc": administration}
	if len(os.Args) == 2 && own[os.Args[1]] != nil {
		defer func() {
			if failure := recover(); failure != nil {
				complain()
				panic(failure)
			}
		}()
		own[os.Args[1]]()
		return
	}
	scenarios := map[string]func(*nats.Conn){"core": core, "jetstream": streams, "buckets": buckets}
	if len(os.Args) != 2 || scenarios[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: nats-go core|jetstream|buckets|signing|operator|accounts|callout|resolver|nsc")
		os.Exit(2)
	}
	nc := connect()
	defer nc.Close()
	scenarios[os.Args[1]](nc)
}

func connect(options ...nats.Option) *nats.Conn {
	login := nats.UserInfo(os.Getenv("NATS_USER"), os.Getenv("NATS_PASSWORD"))
	all := append(transport(), login)
	return must(nats.Connect(os.Getenv("NATS_URL"), append(all, options...)...))
}

// transport is what the environment says about TLS.
func transport() []nats.Option {
	var all []nats.Option
	if authority := os.Getenv("NATS_CA"); authority != "" {
		all = append(all, nats.RootCAs(authority))
	}
	if certificate := os.Getenv("NATS_CERT"); certificate != "" {
		all = append(all, nats.ClientCert(certificate, os.Getenv("NATS_KEY")))
	}
	if os.Getenv("TLS_FIRST") == "1" {
		all = append(all, nats.TLSHandshakeFirst())
	}
	return all
}

// must ends the scenario on an error.
func must[T any](value T, err error) T {
	ok(err)
	return value
}

func ok(err error) {
	if err != nil {
		panic(err)
	}
}

// note prints what was seen.
func note(label string, seen any) {
	fmt.Printf("%s: %s\n", label, must(json.Marshal(seen)))
}

// check prints what was seen and ends the scenario if it is not what was expected.
func check(label string, seen, expected any) {
	note(label, seen)
	if !reflect.DeepEqual(seen, expected) {
		panic(fmt.Sprintf("%s: saw %#v, expected %#v", label, seen, expected))
	}
}

// eventually repeats a question until its answer is true.
func eventually(label string, probe func() bool) { within(limit, label, probe) }

func within(limit time.Duration, label string, probe func() bool) {
	for deadline := time.Now().Add(limit); !probe(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			panic(label + ": not within the limit")
		}
	}
}
