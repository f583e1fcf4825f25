package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// pair is a key with its texts.
type pair struct {
	nkeys.KeyPair
	pub, seed string
}

func newPair(kind nkeys.PrefixByte) pair {
	kp := must(nkeys.CreatePair(kind))
	return pair{kp, must(kp.PublicKey()), string(must(kp.Seed()))}
}

func signWith(p pair) nats.SignatureHandler {
	return func(nonce []byte) ([]byte, error) { return p.Sign(nonce) }
}

// told holds the first error that the server sent on each connection.
var told sync.Map

// dial connects once.
func dial(s *server, options ...nats.Option) (*nats.Conn, error) {
	options = append(options, nats.NoReconnect(), nats.Timeout(limit),
		nats.ErrorHandler(func(nc *nats.Conn, _ *nats.Subscription, err error) {
			if !errors.Is(err, nats.ErrPermissionViolation) {
				told.LoadOrStore(nc, err)
			}
		}))
	return nats.Connect(s.url, options...)
}

func admitted(label string, s *server, options ...nats.Option) *nats.Conn {
	nc, err := dial(s, options...)
	check(label, fmt.Sprint(err), "<nil>")
	return nc
}

func denied(label string, s *server, options ...nats.Option) {
	nc, err := dial(s, options...)
	if nc != nil {
		nc.Close()
	}
	check(label, strings.ToLower(fmt.Sprint(err)), nats.ErrAuthorization.Error())
}

// delivers says whether a message on one connection reaches another.
func delivers(from, to *nats.Conn, subject, wanted string) bool {
	sub := must(to.SubscribeSync(wanted))
	defer sub.Unsubscribe()
	ok(to.Flush())
	ok(from.Publish(subject, []byte("x")))
	ok(from.Flush())
	ok(to.Flush())
	_, err := sub.NextMsg(200 * time.Millisecond)
	return err == nil
}

// ending waits for the end of a connection and says what the server said last.
func ending(label string, nc *nats.Conn) string {
	eventually(label, nc.IsClosed)
	// What the server said may be told after the end.
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, found := told.Load(nc); found {
			break
		}
	}
	if err, found := told.Load(nc); found {
		return strings.ToLower(fmt.Sprint(err))
	}
	return strings.ToLower(fmt.Sprint(nc.LastError()))
}

func signing() {
	user, other := newPair(nkeys.PrefixByteUser), newPair(nkeys.PrefixByteUser)
	s := start(`authorization { users: [
		{ nkey: ` + user.pub + `, permissions: { publish: "a.>", subscribe: ["a.>", "_INBOX.>"] } }
		{ user: web, password: p, allowed_connection_types: [WEBSOCKET] }
		{ user: plain, password: p, allowed_connection_types: [standard] }
	] }`)
	defer s.stop()
	nc := admitted("nkey", s, nats.Nkey(user.pub, signWith(user)))
	check("delivers", delivers(nc, nc, "a.b", "a.*"), true)
	check("denied publish", delivers(nc, nc, "b", "a.*"), false)
	nc.Close()
	denied("unknown nkey", s, nats.Nkey(other.pub, signWith(other)))
	denied("signature of another", s, nats.Nkey(user.pub, signWith(other)))
	denied("nothing", s)
	denied("not this way", s, nats.UserInfo("web", "p"))
	admitted("this way", s, nats.UserInfo("plain", "p")).Close()
}

// tenancy is an operator with a system account.
type tenancy struct {
	operator, signer, system pair
	operatorJWT, systemJWT   string
}

func newTenancy() *tenancy {
	t := &tenancy{operator: newPair(nkeys.PrefixByteOperator), signer: newPair(nkeys.PrefixByteOperator),
		system: newPair(nkeys.PrefixByteAccount)}
	op := jwt.NewOperatorClaims(t.operator.pub)
	op.Name = "op"
	op.SystemAccount = t.system.pub
	op.SigningKeys.Add(t.signer.pub)
	t.operatorJWT = must(op.Encode(t.operator))
	sys := jwt.NewAccountClaims(t.system.pub)
	sys.Name = "SYS"
	t.systemJWT = must(sys.Encode(t.signer))
	return t
}

func (t *tenancy) account(p pair, change func(*jwt.AccountClaims)) string {
	claims := jwt.NewAccountClaims(p.pub)
	claims.Name = "account"
	if change != nil {
		change(claims)
	}
	return must(claims.Encode(t.signer))
}

// login is a user of an account, signed by key.
func login(account string, key pair, change func(*jwt.UserClaims)) nats.Option {
	user := newPair(nkeys.PrefixByteUser)
	return loginAs(user, account, key, change)
}

func loginAs(user pair, account string, key pair, change func(*jwt.UserClaims)) nats.Option {
	claims := jwt.NewUserClaims(user.pub)
	if key.pub != account {
		claims.IssuerAccount = account
	}
	if change != nil {
		change(claims)
	}
	return nats.UserJWTAndSeed(must(claims.Encode(key)), user.seed)
}

// ask sends a request to the system account and gives code, message or description.
func ask(sys *nats.Conn, subject, payload string) string {
	msg := must(sys.Request(subject, []byte(payload), limit))
	var answer struct {
		Data *struct {
			Code    int
			Message string
		}
		Error *struct {
			Code        int
			Description string
		}
	}
	ok(json.Unmarshal(msg.Data, &answer))
	if answer.Error != nil {
		return fmt.Sprintf("%d %s", answer.Error.Code, answer.Error.Description)
	}
	return fmt.Sprintf("%d %s", answer.Data.Code, answer.Data.Message)
}

func operator() {
	t := newTenancy()
	s := start(`operator: ` + t.operatorJWT + `
		resolver: { type: full, dir: "FOLDER/jwt", allow_delete: true }
		resolver_preload: { ` + t.system.pub + `: ` + t.systemJWT + ` }
		jetstream: { store_dir: "FOLDER/js" }`)
	defer s.stop()
	sys := admitted("system user", s, login(t.system.pub, t.system, nil))
	defer sys.Close()
	users(t, s, sys)
	claims(t, s, sys)
	lifetimes(t, s, sys)
	alone(t)
	cookies(t)
}

// cookies are where browsers keep a token that needs no signature.
func cookies(t *tenancy) {
	a, user := newPair(nkeys.PrefixByteAccount), newPair(nkeys.PrefixByteUser)
	s := start(`operator: ` + t.operatorJWT + `
		resolver: MEMORY
		resolver_preload: { ` + t.system.pub + `: ` + t.systemJWT + `, ` + a.pub + `: ` + t.account(a, nil) + ` }
		websocket { listen: "127.0.0.1:-1", no_tls: true, jwt_cookie: session }`)
	defer s.stop()
	token := func(change func(*jwt.UserClaims)) string {
		claims := jwt.NewUserClaims(user.pub)
		change(claims)
		return must(claims.Encode(a))
	}
	bearer := token(func(c *jwt.UserClaims) { c.BearerToken = true })
	over := func(cookie string, options ...nats.Option) (*nats.Conn, error) {
		// A browser says which page asks; a login by cookie from nowhere is refused.
		header := http.Header{"Cookie": {cookie}, "Origin": {strings.Replace(s.ws, "ws:", "http:", 1)}}
		return nats.Connect(s.ws, append(options, nats.NoReconnect(), nats.Timeout(limit), nats.WebSocketConnectionHeaders(header))...)
	}
	for _, try := range []struct{ label, cookie string }{
		{"token in a cookie", "theme=dark; session=" + bearer},
		{"cookie of another name", "theme=" + bearer},
		{"no token in the cookie", "session=x"},
		{"an expired one", "session=" + token(func(c *jwt.UserClaims) { c.BearerToken, c.Expires = true, 1 })},
		{"one that wants a signature", "session=" + token(func(*jwt.UserClaims) {})},
		{"not over WebSocket", "session=" + token(func(c *jwt.UserClaims) {
			c.BearerToken = true
			c.AllowedConnectionTypes.Add("STANDARD")
		})},
	} {
		nc, err := over(try.cookie)
		note(try.label, strings.ToLower(fmt.Sprint(err)))
		check(try.label, err == nil, try.label == "token in a cookie")
		if err == nil {
			check("delivers", delivers(nc, nc, "x", "x"), true)
			nc.Close()
		}
	}
	nc, err := over("session="+bearer, login(a.pub, a, nil))
	check("a token of its own goes first", fmt.Sprint(err), "<nil>")
	nc.Close()
	denied("no cookies over TCP", s)
}

// alone is a server without an account of the system, with accounts it has in memory.
func alone(t *tenancy) {
	op := jwt.NewOperatorClaims(t.operator.pub)
	op.SigningKeys.Add(t.signer.pub)
	a := newPair(nkeys.PrefixByteAccount)
	token := t.account(a, func(c *jwt.AccountClaims) { c.Expires = time.Now().Unix() + 5 })
	s := start(`operator: ` + must(op.Encode(t.operator)) + `
		resolver: MEMORY
		resolver_preload: { ` + a.pub + `: ` + token + ` }`)
	defer s.stop()
	nc := admitted("until its account expires", s, login(a.pub, a, nil))
	check("account in memory expires", ending("account in memory expires", nc), "nats: account authentication expired")
	denied("account in memory expired", s, login(a.pub, a, nil))
}

// accounts is what operators grant accounts and what accounts grant each other.
func accounts() {
	t := newTenancy()
	s := start(`operator: ` + t.operatorJWT + `
		resolver: { type: full, dir: "FOLDER/jwt", allow_delete: true }
		resolver_preload: { ` + t.system.pub + `: ` + t.systemJWT + ` }
		jetstream: { store_dir: "FOLDER/js" }`)
	defer s.stop()
	sys := admitted("system user", s, login(t.system.pub, t.system, nil))
	defer sys.Close()
	limits(t, s, sys)
	sharing(t, s, sys)
}

func limits(t *tenancy, s *server, sys *nats.Conn) {
	a := newPair(nkeys.PrefixByteAccount)
	push := func(change func(*jwt.AccountClaims)) {
		check("push", ask(sys, "$SYS.REQ.ACCOUNT."+a.pub+".CLAIMS.UPDATE", t.account(a, change)), "200 jwt updated")
	}
	push(func(c *jwt.AccountClaims) { c.Limits.Conn, c.Limits.NatsLimits.Payload = 1, 10 })
	one := admitted("the one connection", s, login(a.pub, a, nil))
	eventually("max payload", func() bool { return one.MaxPayload() == 10 })
	_, err := dial(s, login(a.pub, a, nil))
	check("too many connections", fmt.Sprint(err), "nats: maximum account active connections exceeded")
	push(func(c *jwt.AccountClaims) { c.Limits.Conn = 2 })
	admitted("one more", s, login(a.pub, a, nil)).Close()
	one.Close()
	js := func(label string, nc *nats.Conn) {
		_, err := must(nc.JetStream()).AddStream(&nats.StreamConfig{Name: "S", Subjects: []string{"s"}})
		var api *nats.APIError
		if errors.As(err, &api) {
			note(label, fmt.Sprintf("%d %s", api.ErrorCode, api.Description))
		} else {
			note(label, fmt.Sprint(err))
		}
	}
	push(nil)
	nc := admitted("without JetStream", s, login(a.pub, a, nil))
	js("stream without JetStream", nc)
	push(func(c *jwt.AccountClaims) {
		c.Limits.DiskStorage = 1 << 20
		c.Limits.Streams = 1
		c.Limits.Consumer = -1
	})
	js("stream with JetStream", nc)
	_, err = must(nc.JetStream()).AddStream(&nats.StreamConfig{Name: "T", Subjects: []string{"t"}})
	note("one stream too many", fmt.Sprint(err))
	nc.Close()
}

func users(t *tenancy, s *server, sys *nats.Conn) {
	a, role, key := newPair(nkeys.PrefixByteAccount), newPair(nkeys.PrefixByteAccount), newPair(nkeys.PrefixByteAccount)
	denied("account unknown", s, login(a.pub, a, nil))
	token := t.account(a, func(c *jwt.AccountClaims) {
		c.SigningKeys.Add(key.pub)
		scope := jwt.NewUserScope()
		scope.Key, scope.Role = role.pub, "worker"
		scope.Template.Pub.Allow.Add("jobs.{{name()}}.>")
		scope.Template.Sub.Allow.Add("jobs.>", "_INBOX.>")
		c.SigningKeys.AddScopedSigner(scope)
		c.DefaultPermissions.Pub.Deny.Add("secret")
		c.Limits.DisallowBearer = true
	})
	check("push", ask(sys, "$SYS.REQ.CLAIMS.UPDATE", token), "200 jwt updated")
	nc := admitted("user", s, login(a.pub, a, nil))
	check("delivers", delivers(nc, nc, "x", "x"), true)
	check("default permissions", delivers(nc, nc, "secret", "secret"), false)
	nc.Close()
	admitted("signing key", s, login(a.pub, key, nil)).Close()
	scoped := func(c *jwt.UserClaims) { c.Name = "ada"; c.SetScoped(true) }
	nc = admitted("scoped", s, login(a.pub, role, scoped))
	check("own jobs", delivers(nc, nc, "jobs.ada.1", "jobs.>"), true)
	check("jobs of others", delivers(nc, nc, "jobs.bob.1", "jobs.>"), false)
	nc.Close()
	denied("scoped with permissions", s, login(a.pub, role, nil))
	denied("unknown signing key", s, login(a.pub, newPair(nkeys.PrefixByteAccount), nil))
	denied("expired", s, login(a.pub, a, func(c *jwt.UserClaims) { c.Expires = 1 }))
	denied("not yet", s, login(a.pub, a, func(c *jwt.UserClaims) { c.NotBefore = time.Now().Unix() + 1000 }))
	denied("elsewhere", s, login(a.pub, a, func(c *jwt.UserClaims) { c.Src.Add("10.9.0.0/16") }))
	admitted("here", s, login(a.pub, a, func(c *jwt.UserClaims) { c.Src.Add("127.0.0.0/8") })).Close()
	denied("other way", s, login(a.pub, a, func(c *jwt.UserClaims) { c.AllowedConnectionTypes.Add("WEBSOCKET") }))
	admitted("all day", s, login(a.pub, a, func(c *jwt.UserClaims) {
		c.Times = []jwt.TimeRange{{Start: "00:00:00", End: "12:00:00"}, {Start: "12:00:00", End: "00:00:00"}}
		c.Locale = "America/New_York"
	})).Close()
	hour := time.Now().UTC().Add(2 * time.Hour).Format("15:04:05")
	later := time.Now().UTC().Add(3 * time.Hour).Format("15:04:05")
	denied("later today", s, login(a.pub, a, func(c *jwt.UserClaims) {
		c.Times, c.Locale = []jwt.TimeRange{{Start: hour, End: later}}, "UTC"
	}))
	denied("bearer", s, login(a.pub, a, func(c *jwt.UserClaims) { c.BearerToken = true }))
	other := newPair(nkeys.PrefixByteUser)
	mine := jwt.NewUserClaims(newPair(nkeys.PrefixByteUser).pub)
	denied("key of another", s, nats.UserJWTAndSeed(must(mine.Encode(a)), other.seed))
	denied("nothing", s)
	denied("password", s, nats.UserInfo("a", "b"))
	limited := admitted("limited", s, login(a.pub, a, func(c *jwt.UserClaims) { c.Limits.Subs, c.Limits.Payload = 1, 10 }))
	must(limited.SubscribeSync("one"))
	must(limited.SubscribeSync("two"))
	limited.Flush()
	eventually("one subscription too many", func() bool { return limited.LastError() != nil })
	check("subscriptions", limited.LastError().Error(), nats.ErrMaxSubscriptionsExceeded.Error())
	limited.Close()
	limited = admitted("small messages", s, login(a.pub, a, func(c *jwt.UserClaims) { c.Limits.Payload = 10 }))
	eventually("max payload", func() bool { return limited.MaxPayload() == 10 })
	check("ten bytes", fmt.Sprint(limited.Publish("x", make([]byte, 10)), limited.Flush()), "<nil> <nil>")
	check("eleven bytes", errors.Is(limited.Publish("x", make([]byte, 11)), nats.ErrMaxPayload), true)
	limited.Close()
}

func sharing(t *tenancy, s *server, sys *nats.Conn) {
	a, b := newPair(nkeys.PrefixByteAccount), newPair(nkeys.PrefixByteAccount)
	activation := jwt.NewActivationClaims(b.pub)
	activation.ImportSubject, activation.ImportType = "private.>", jwt.Stream
	activationJWT := must(activation.Encode(a))
	exporter := t.account(a, func(c *jwt.AccountClaims) {
		c.Exports.Add(&jwt.Export{Subject: "news.>", Type: jwt.Stream},
			&jwt.Export{Subject: "private.>", Type: jwt.Stream, TokenReq: true},
			&jwt.Export{Subject: "svc", Type: jwt.Service})
		c.AddMapping("old", jwt.WeightedMapping{Subject: "new"})
	})
	importer := t.account(b, func(c *jwt.AccountClaims) {
		c.Imports.Add(&jwt.Import{Subject: "news.>", Account: a.pub, LocalSubject: "from.a.>", Type: jwt.Stream},
			&jwt.Import{Subject: "private.x", Account: a.pub, Token: activationJWT, Type: jwt.Stream},
			&jwt.Import{Subject: "svc", Account: a.pub, LocalSubject: "their.svc", Type: jwt.Service})
	})
	check("push exporter", ask(sys, "$SYS.REQ.CLAIMS.UPDATE", exporter), "200 jwt updated")
	check("push importer", ask(sys, "$SYS.REQ.CLAIMS.UPDATE", importer), "200 jwt updated")
	na, nb := admitted("exporter", s, login(a.pub, a, nil)), admitted("importer", s, login(b.pub, b, nil))
	defer na.Close()
	defer nb.Close()
	check("isolated", delivers(na, nb, "x", "x"), false)
	check("mapping", delivers(na, na, "old", "new"), true)
	check("stream", delivers(na, nb, "news.today", "from.a.today"), true)
	check("activated stream", delivers(na, nb, "private.x", "private.x"), true)
	must(na.Subscribe("svc", func(m *nats.Msg) { m.Respond([]byte("served")) }))
	ok(na.Flush())
	check("service", string(must(nb.Request("their.svc", nil, limit)).Data), "served")
	traces(t, a, b, na, nb, sys)
	check("push exporter again", ask(sys, "$SYS.REQ.CLAIMS.UPDATE", exporter), "200 jwt updated")
	activation.Expires = time.Now().Unix() + 20
	short := must(activation.Encode(a))
	check("push importer for a time", ask(sys, "$SYS.REQ.CLAIMS.UPDATE", t.account(b, func(c *jwt.AccountClaims) {
		c.Imports.Add(&jwt.Import{Subject: "news.>", Account: a.pub, Type: jwt.Stream},
			&jwt.Import{Subject: "private.x", Account: a.pub, Token: short, Type: jwt.Stream})
	})), "200 jwt updated")
	check("activated for a time", delivers(na, nb, "private.x", "private.x"), true)
	within(2*limit, "the activation runs out", func() bool { return !delivers(na, nb, "private.x", "private.x") })
	check("what needs none stays", delivers(na, nb, "news.today", "news.today"), true)
	without := t.account(b, func(c *jwt.AccountClaims) {
		c.Imports.Add(&jwt.Import{Subject: "news.>", Account: a.pub, Type: jwt.Stream},
			&jwt.Import{Subject: "private.x", Account: a.pub, Type: jwt.Stream})
	})
	check("push changed importer", ask(sys, "$SYS.REQ.CLAIMS.UPDATE", without), "200 jwt updated")
	check("stream at its own place", delivers(na, nb, "news.today", "news.today"), true)
	check("not at the former", delivers(na, nb, "news.today", "from.a.today"), false)
	check("not without activation", delivers(na, nb, "private.x", "private.x"), false)
}

// traces is what tokens say of tracing: where an account has messages traced, and who tells others.
func traces(t *tenancy, a, b pair, na, nb *nats.Conn, sys *nats.Conn) {
	exporter := t.account(a, func(c *jwt.AccountClaims) {
		c.Exports.Add(&jwt.Export{Subject: "told", Type: jwt.Service, AllowTrace: true},
			&jwt.Export{Subject: "untold", Type: jwt.Service}, &jwt.Export{Subject: "news.>", Type: jwt.Stream})
		c.Trace = &jwt.MsgTrace{Destination: "traces.a", Sampling: 100}
	})
	importer := t.account(b, func(c *jwt.AccountClaims) {
		c.Imports.Add(&jwt.Import{Subject: "told", Account: a.pub, Type: jwt.Service},
			&jwt.Import{Subject: "untold", Account: a.pub, Type: jwt.Service},
			&jwt.Import{Subject: "news.>", Account: a.pub, Type: jwt.Stream, AllowTrace: true})
	})
	check("push tracing exporter", ask(sys, "$SYS.REQ.CLAIMS.UPDATE", exporter), "200 jwt updated")
	check("push tracing importer", ask(sys, "$SYS.REQ.CLAIMS.UPDATE", importer), "200 jwt updated")
	serve := func(m *nats.Msg) { m.Respond(nil) }
	must(na.Subscribe("told", serve))
	must(na.Subscribe("untold", serve))
	must(nb.Subscribe("news.now", serve))
	ok(na.Flush())
	ok(nb.Flush())
	steps := func(label string, nc *nats.Conn, subject, header, value string) {
		sub := must(nc.SubscribeSync("traces.>"))
		ok(nc.Flush())
		msg := nats.NewMsg(subject)
		msg.Header.Set(header, value)
		ok(nc.PublishMsg(msg))
		var trace struct{ Events []struct{ Type string } }
		ok(json.Unmarshal(must(sub.NextMsg(limit)).Data, &trace))
		types := []string{}
		for _, event := range trace.Events {
			types = append(types, event.Type)
		}
		note(label, types)
		switch {
		case subject == "untold":
			check(label, fmt.Sprint(types), "[in si]")
		case subject == "told":
			check(label, fmt.Sprint(types), "[in si eg]")
		default:
			check(label, fmt.Sprint(types), "[in se eg]")
		}
		ok(sub.Unsubscribe())
	}
	steps("service that tells", nb, "told", "Nats-Trace-Dest", "traces.b")
	steps("service that does not", nb, "untold", "Nats-Trace-Dest", "traces.b")
	steps("stream that tells", na, "news.now", "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
}

func lifetimes(t *tenancy, s *server, sys *nats.Conn) {
	a, key := newPair(nkeys.PrefixByteAccount), newPair(nkeys.PrefixByteAccount)
	push := func(change func(*jwt.AccountClaims)) {
		check("push", ask(sys, "$SYS.REQ.ACCOUNT."+a.pub+".CLAIMS.UPDATE", t.account(a, change)), "200 jwt updated")
	}
	withKey := func(c *jwt.AccountClaims) { c.SigningKeys.Add(key.pub) }
	push(withKey)
	short := admitted("short", s, login(a.pub, a, func(c *jwt.UserClaims) { c.Expires = time.Now().Unix() + 1 }))
	check("expires", ending("short", short), nats.ErrAuthExpired.Error())

	user := newPair(nkeys.PrefixByteUser)
	revoked, stays := admitted("to be revoked", s, loginAs(user, a.pub, a, nil)), admitted("stays", s, login(a.pub, a, nil))
	push(func(c *jwt.AccountClaims) { withKey(c); c.Revoke(user.pub) })
	check("revoked", ending("revoked", revoked), nats.ErrAuthRevoked.Error())
	check("stays", stays.IsConnected() && stays.Flush() == nil, true)
	denied("revoked again", s, loginAs(user, a.pub, a, nil))
	byKey := admitted("by signing key", s, login(a.pub, key, nil))
	push(nil)
	ending("key removed", byKey)
	denied("by removed key", s, login(a.pub, key, nil))

	push(nil)
	push(func(c *jwt.AccountClaims) { c.Expires = time.Now().Unix() + 1 })
	check("account expires", ending("account expires", stays), "nats: account authentication expired")
	denied("expired account", s, login(a.pub, a, nil))
}

func claims(t *tenancy, s *server, sys *nats.Conn) {
	a, stranger := newPair(nkeys.PrefixByteAccount), newPair(nkeys.PrefixByteOperator)
	token := t.account(a, nil)
	check("garbage", strings.HasPrefix(ask(sys, "$SYS.REQ.CLAIMS.UPDATE", "garbage"), "500 jwt update resulted in error - "), true)
	check("other subject", ask(sys, "$SYS.REQ.ACCOUNT."+t.system.pub+".CLAIMS.UPDATE", token),
		"500 jwt update resulted in error - subject does not match jwt content")
	invalid := jwt.NewAccountClaims(a.pub)
	invalid.Limits.Exports = 0
	invalid.Exports.Add(&jwt.Export{Subject: "x", Type: jwt.Stream})
	check("invalid", strings.HasPrefix(ask(sys, "$SYS.REQ.CLAIMS.UPDATE", must(invalid.Encode(t.signer))),
		"500 jwt validation failed - "), true)
	check("lookup of nothing", string(must(sys.Request("$SYS.REQ.ACCOUNT."+a.pub+".CLAIMS.LOOKUP", nil, limit)).Data), "")
	check("push", ask(sys, "$SYS.REQ.CLAIMS.UPDATE", token), "200 jwt updated")
	check("lookup", string(must(sys.Request("$SYS.REQ.ACCOUNT."+a.pub+".CLAIMS.LOOKUP", nil, limit)).Data) == token, true)
	var list struct{ Data []string }
	ok(json.Unmarshal(must(sys.Request("$SYS.REQ.CLAIMS.LIST", nil, limit)).Data, &list))
	check("listed", strings.Contains(strings.Join(list.Data, " "), a.pub), true)
	inbox := nats.NewInbox()
	packed := must(sys.SubscribeSync(inbox))
	ok(sys.PublishRequest("$SYS.REQ.CLAIMS.PACK", inbox, nil))
	found := false
	for {
		msg := must(packed.NextMsg(limit))
		if len(msg.Data) == 0 {
			break
		}
		found = found || string(msg.Data) == a.pub+"|"+token
	}
	check("packed", found, true)
	nc := admitted("user", s, login(a.pub, a, nil))
	remove := func(by pair, account string) string {
		request := jwt.NewGenericClaims(by.pub)
		request.Data["accounts"] = []string{account}
		return ask(sys, "$SYS.REQ.CLAIMS.DELETE", must(request.Encode(by)))
	}
	failed := func(by pair) string { return "500 delete accounts request by " + by.pub + " failed - " }
	check("delete by a stranger", remove(stranger, a.pub) == failed(stranger)+"not trusted", true)
	check("delete the system", remove(t.operator, t.system.pub) == failed(t.operator)+"not allowed to delete system account", true)
	check("delete", remove(t.operator, a.pub), "200 deleted 1 accounts")
	note("deleted while connected", ending("deleted", nc))
	denied("deleted", s, login(a.pub, a, nil))
}
