package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// answerer is an auth service: it decides about requests.
type answerer struct {
	issuer pair
	// The account that the issuer signs for, if it is a signing key.
	issuerAccount string
	xkey          *pair
	decide        func(*jwt.AuthorizationRequestClaims) (user *jwt.UserClaims, signer pair, err string)
	seen          chan *jwt.AuthorizationRequestClaims
}

func (a *answerer) serve(nc *nats.Conn) {
	a.seen = make(chan *jwt.AuthorizationRequestClaims, 100)
	must(nc.Subscribe("$SYS.REQ.USER.AUTH", func(msg *nats.Msg) {
		data, serverKey := msg.Data, msg.Header.Get("Nats-Server-Xkey")
		if a.xkey != nil {
			data = must(a.xkey.Open(data, serverKey))
		}
		request := must(jwt.DecodeAuthorizationRequestClaims(string(data)))
		a.seen <- request
		user, signer, refusal := a.decide(request)
		response := jwt.NewAuthorizationResponseClaims(request.UserNkey)
		response.Audience = request.Server.ID
		response.Error = refusal
		if a.issuerAccount != "" {
			response.IssuerAccount = a.issuerAccount
		}
		if user != nil {
			user.Subject = request.UserNkey
			response.Jwt = must(user.Encode(signer))
		}
		answer := []byte(must(response.Encode(a.issuer)))
		if a.xkey != nil {
			answer = must(a.xkey.Seal(answer, serverKey))
		}
		ok(msg.Respond(answer))
	}))
	ok(nc.Flush())
}

func callout() {
	issuer := newPair(nkeys.PrefixByteAccount)
	configured(issuer, nil)
	xkey := newPair(nkeys.PrefixByteCurve)
	configured(issuer, &xkey)
	delegated()
	certified(issuer)
}

func configured(issuer pair, xkey *pair) {
	line := ""
	if xkey != nil {
		line = "xkey: " + xkey.pub
	}
	s := start(`
		accounts: { AUTH: { users: [{ user: auth, password: pwd }] }, APP: { users: [{ user: app, password: pwd }] }, SYS: {} }
		system_account: SYS
		authorization: { timeout: 1, auth_callout: { issuer: ` + issuer.pub + `, account: AUTH, auth_users: [auth], ` + line + ` } }`)
	defer s.stop()
	denied("no service yet", s, nats.UserInfo("ada", "x"))
	own := admitted("service", s, nats.UserInfo("auth", "pwd"))
	defer own.Close()
	denied("own user, wrong password", s, nats.UserInfo("auth", "x"))
	service := &answerer{issuer: issuer, xkey: xkey}
	service.decide = func(request *jwt.AuthorizationRequestClaims) (*jwt.UserClaims, pair, string) {
		user := &jwt.UserClaims{}
		user.Limits.NatsLimits = jwt.NatsLimits{Subs: -1, Data: -1, Payload: -1}
		user.Audience = "APP"
		switch request.ConnectOptions.Username {
		case "ada":
			user.Name = "ada of app"
			user.Pub.Allow.Add("a.>")
			user.Sub.Allow.Add("a.>", "_INBOX.>")
		case "short":
			user.Expires = time.Now().Unix() + 2
		case "nowhere":
			user.Audience = "NOWHERE"
		case "forged":
			return user, newPair(nkeys.PrefixByteAccount), ""
		case "service":
			user.Audience = "AUTH"
		case "silent":
			time.Sleep(1500 * time.Millisecond)
		default:
			return nil, pair{}, "not you"
		}
		return user, issuer, ""
	}
	service.serve(own)
	ada := admitted("ada", s, nats.UserInfo("ada", "x"), nats.Name("client of ada"))
	request := <-service.seen
	check("asked for", request.Subject == issuer.pub && request.Audience == "nats-authorization-request", true)
	check("password", request.ConnectOptions.Password, "x")
	check("client", fmt.Sprintf("%s %s %s %s %s", request.ClientInformation.User, request.ClientInformation.Name,
		request.ClientInformation.Kind, request.ClientInformation.Type, request.ClientInformation.Host),
		"ada client of ada Client nats 127.0.0.1")
	check("server", request.Server.Name, "auth")
	check("sealed", request.Server.XKey != "", xkey != nil)
	check("allowed", delivers(ada, ada, "a.1", "a.*"), true)
	check("not allowed", delivers(ada, ada, "b", "a.*"), false)
	check("other account", delivers(own, ada, "a.1", "a.*"), false)
	ada.Close()
	denied("refused", s, nats.UserInfo("eve", "x"))
	denied("nothing given", s)
	denied("unknown account", s, nats.UserInfo("nowhere", "x"))
	denied("forged", s, nats.UserInfo("forged", "x"))
	denied("too slow", s, nats.UserInfo("silent", "x"))
	short := admitted("short", s, nats.UserInfo("short", "x"))
	check("expires", ending("short", short), nats.ErrAuthExpired.Error())
	inside := admitted("in the account of the service", s, nats.UserInfo("service", "x"))
	check("may not ask itself", delivers(inside, own, "$SYS.REQ.USER.AUTH", "$SYS.REQ.USER.AUTH"), false)
	inside.Close()
}

// delegated is auth callout with an operator: bearer tokens lead to the service.
func delegated() {
	t := newTenancy()
	account, app, key := newPair(nkeys.PrefixByteAccount), newPair(nkeys.PrefixByteAccount), newPair(nkeys.PrefixByteAccount)
	user, xkey := newPair(nkeys.PrefixByteUser), newPair(nkeys.PrefixByteCurve)
	accountJWT := t.account(account, func(c *jwt.AccountClaims) {
		c.Authorization.AuthUsers.Add(user.pub)
		c.Authorization.AllowedAccounts.Add(app.pub)
		c.Authorization.XKey = xkey.pub
	})
	appJWT := t.account(app, func(c *jwt.AccountClaims) {
		scope := jwt.NewUserScope()
		scope.Key, scope.Role = key.pub, "reader"
		scope.Template.Sub.Allow.Add("{{name()}}.>")
		scope.Template.Pub.Deny.Add(">")
		c.SigningKeys.AddScopedSigner(scope)
	})
	s := start(`operator: ` + t.operatorJWT + `
		resolver: MEMORY
		authorization: { timeout: 1 }
		resolver_preload: { ` + t.system.pub + `: ` + t.systemJWT + `, ` + account.pub + `: ` + accountJWT + `, ` + app.pub + `: ` + appJWT + ` }`)
	defer s.stop()
	own := admitted("operator: service", s, loginAs(user, account.pub, account, nil))
	defer own.Close()
	service := &answerer{issuer: account, xkey: &xkey}
	service.decide = func(request *jwt.AuthorizationRequestClaims) (*jwt.UserClaims, pair, string) {
		user := &jwt.UserClaims{}
		user.Name = request.ConnectOptions.Token
		switch request.ConnectOptions.Token {
		case "ada":
			user.IssuerAccount = app.pub
			return user, key, ""
		case "stranger":
			user.IssuerAccount = t.system.pub
			return user, t.system, ""
		case "own":
			user.Limits.NatsLimits = jwt.NatsLimits{Subs: -1, Data: -1, Payload: -1}
			return user, account, ""
		}
		return nil, pair{}, "unknown"
	}
	service.serve(own)
	sentinel := newPair(nkeys.PrefixByteUser)
	bearer := jwt.NewUserClaims(sentinel.pub)
	bearer.BearerToken = true
	bearer.Permissions.Pub.Deny.Add(">")
	bearer.Permissions.Sub.Deny.Add(">")
	bearerJWT := must(bearer.Encode(account))
	sentinelLogin := nats.UserJWTAndSeed(bearerJWT, sentinel.seed)
	ada := admitted("operator: scoped", s, sentinelLogin, nats.Token("ada"))
	request := <-service.seen
	check("operator: asked", request.Subject == account.pub && request.ConnectOptions.JWT == bearerJWT, true)
	app1 := admitted("operator: app", s, login(app.pub, app, nil))
	check("operator: in the app", delivers(app1, ada, "ada.1", "ada.*"), true)
	check("operator: may not publish", delivers(ada, app1, "ada.1", "ada.*"), false)
	app1.Close()
	ada.Close()
	admitted("operator: own account", s, sentinelLogin, nats.Token("own")).Close()
	denied("operator: account not allowed", s, sentinelLogin, nats.Token("stranger"))
	denied("operator: refused", s, sentinelLogin, nats.Token("eve"))
	denied("operator: nothing", s)
}

// certified shows a service the certificate of a client.
func certified(issuer pair) {
	ca := newAuthority("authority")
	certFile, keyFile := ca.pair("server")
	s := start(`
		tls { cert_file: "` + certFile + `", key_file: "` + keyFile + `", ca_file: "` + ca.file() + `", verify: true }
		accounts: { AUTH: { users: [{ user: auth, password: pwd }] }, APP: {} }
		authorization: { timeout: 5, auth_callout: { issuer: ` + issuer.pub + `, account: AUTH, auth_users: [auth], allowed_accounts: [APP] } }`)
	defer s.stop()
	certFile, keyFile = ca.pair("ada")
	shown := []nats.Option{nats.RootCAs(ca.file()), nats.ClientCert(certFile, keyFile), nats.Secure()}
	own := admitted("tls: service", s, append(shown, nats.UserInfo("auth", "pwd"))...)
	defer own.Close()
	service := &answerer{issuer: issuer}
	service.decide = func(*jwt.AuthorizationRequestClaims) (*jwt.UserClaims, pair, string) {
		user := &jwt.UserClaims{}
		user.Limits.NatsLimits = jwt.NatsLimits{Subs: -1, Data: -1, Payload: -1}
		user.Audience = "APP"
		return user, issuer, ""
	}
	service.serve(own)
	admitted("tls: ada", s, shown...).Close()
	told := (<-service.seen).TLS
	check("tls: told", told != nil && told.Version == "1.3" && told.Cipher != "", true)
	check("tls: not verified", len(told.Certs), 0)
	check("tls: chains", len(told.VerifiedChains), 1)
	subjects := []string{}
	for _, text := range told.VerifiedChains[0] {
		block, _ := pem.Decode([]byte(text))
		subjects = append(subjects, must(x509.ParseCertificate(block.Bytes)).Subject.CommonName)
	}
	check("tls: chain", subjects, []string{"ada", "authority"})
}
