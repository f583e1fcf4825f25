// Makes ../golden.json: tokens and keys as the official Go modules write them, for the tests of
// this crate. The keys are made for the tests and guard nothing.
package main

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

type pair struct {
	kp   nkeys.KeyPair
	pub  string
	seed string
}

func key(kind nkeys.PrefixByte) pair {
	kp := must(nkeys.CreatePair(kind))
	return pair{kp, must(kp.PublicKey()), string(must(kp.Seed()))}
}

func main() {
	operator, operatorSigner := key(nkeys.PrefixByteOperator), key(nkeys.PrefixByteOperator)
	account, accountSigner, role := key(nkeys.PrefixByteAccount), key(nkeys.PrefixByteAccount), key(nkeys.PrefixByteAccount)
	system, user, server := key(nkeys.PrefixByteAccount), key(nkeys.PrefixByteUser), key(nkeys.PrefixByteServer)
	xkey := key(nkeys.PrefixByteCurve)
	out := map[string]any{}
	for name, p := range map[string]pair{
		"operator": operator, "operator_signer": operatorSigner, "account": account, "account_signer": accountSigner,
		"role": role, "system": system, "user": user, "server": server, "xkey": xkey,
	} {
		out[name] = map[string]string{"public": p.pub, "seed": p.seed}
	}

	op := jwt.NewOperatorClaims(operator.pub)
	op.Name = "op"
	op.SigningKeys.Add(operatorSigner.pub)
	op.SystemAccount = system.pub
	op.AccountServerURL = "nats://localhost:4222"
	op.OperatorServiceURLs.Add("nats://localhost:4222")
	out["operator_jwt"] = must(op.Encode(operator.kp))

	activation := jwt.NewActivationClaims(account.pub)
	activation.ImportSubject = "private.>"
	activation.ImportType = jwt.Stream
	activationToken := must(activation.Encode(system.kp))
	out["activation_jwt"] = activationToken

	ac := jwt.NewAccountClaims(account.pub)
	ac.Name = "acme"
	ac.Tags.Add("plan:gold")
	ac.Description = "the account of the tests"
	ac.SigningKeys.Add(accountSigner.pub)
	scope := jwt.NewUserScope()
	scope.Key = role.pub
	scope.Role = "worker"
	scope.Description = "works"
	scope.Template.Pub.Allow.Add("jobs.{{name()}}.>", "{{tag(region)}}.{{account-tag(plan)}}")
	scope.Template.Sub.Allow.Add("_INBOX.>")
	scope.Template.Subs = 10
	scope.Template.AllowedConnectionTypes.Add(jwt.ConnectionTypeStandard, "FUTURE")
	ac.SigningKeys.AddScopedSigner(scope)
	ac.Limits.Conn = 100
	ac.Limits.DiskStorage = 1 << 30
	ac.Limits.MemoryStorage = -1
	ac.Limits.Streams = 5
	ac.Exports.Add(
		&jwt.Export{Name: "public", Subject: "news.>", Type: jwt.Stream},
		&jwt.Export{Name: "svc", Subject: "svc.*", Type: jwt.Service, TokenReq: true, ResponseType: jwt.ResponseTypeStream,
			ResponseThreshold: time.Second, AccountTokenPosition: 2,
			Latency: &jwt.ServiceLatency{Sampling: jwt.Headers, Results: "latency"}},
	)
	ac.Imports.Add(&jwt.Import{Name: "in", Subject: "private.a", Account: system.pub, Token: activationToken,
		LocalSubject: "local.a", Type: jwt.Stream})
	ac.DefaultPermissions.Sub.Deny.Add("secret.>")
	ac.DefaultPermissions.Resp = &jwt.ResponsePermission{MaxMsgs: 2, Expires: time.Minute}
	ac.AddMapping("old.*", jwt.WeightedMapping{Subject: "new.$1", Weight: 40}, jwt.WeightedMapping{Subject: "newer.$1", Cluster: "c"})
	ac.Authorization.AuthUsers.Add(user.pub)
	ac.Authorization.AllowedAccounts.Add("*")
	ac.Authorization.XKey = xkey.pub
	ac.Trace = &jwt.MsgTrace{Destination: "trace"}
	out["account_jwt"] = must(ac.Encode(operatorSigner.kp))
	ac.RevokeAt(user.pub, time.Unix(9999999999, 0))
	out["revoking_account_jwt"] = must(ac.Encode(operatorSigner.kp))
	out["self_signed_account_jwt"] = must(jwt.NewAccountClaims(account.pub).Encode(account.kp))
	tiered := jwt.NewAccountClaims(account.pub)
	tiered.Limits.JetStreamTieredLimits["R1"] = jwt.JetStreamLimits{DiskStorage: 1024, MemoryStorage: 0, Streams: -1, Consumer: -1}
	out["tiered_account_jwt"] = must(tiered.Encode(operator.kp))

	uc := jwt.NewUserClaims(user.pub)
	uc.Name = "ada"
	uc.Tags.Add("region:eu")
	uc.Pub.Allow.Add("a.>")
	uc.Sub.Deny.Add("b", "c queue")
	uc.Resp = &jwt.ResponsePermission{MaxMsgs: 1, Expires: 5 * time.Second}
	uc.Src.Add("127.0.0.0/8")
	uc.Times = []jwt.TimeRange{{Start: "00:00:00", End: "23:59:59"}}
	uc.Locale = "Europe/Berlin"
	uc.AllowedConnectionTypes.Add(jwt.ConnectionTypeStandard)
	out["user_jwt"] = must(uc.Encode(account.kp))
	uc.IssuerAccount = account.pub
	uc.BearerToken = true
	out["bearer_user_jwt"] = must(uc.Encode(accountSigner.kp))
	old := jwt.NewUserClaims(user.pub)
	old.Expires = 1
	out["expired_user_jwt"] = must(old.Encode(account.kp))
	early := jwt.NewUserClaims(user.pub)
	early.NotBefore = 9999999999
	out["early_user_jwt"] = must(early.Encode(account.kp))
	scoped := jwt.NewUserClaims(user.pub)
	scoped.Name = "ada"
	scoped.Tags.Add("region:eu", "region:us")
	scoped.IssuerAccount = account.pub
	scoped.SetScoped(true)
	out["scoped_user_jwt"] = must(scoped.Encode(role.kp))
	scoped.SetScoped(false)
	out["greedy_scoped_user_jwt"] = must(scoped.Encode(role.kp))

	// Version 1, as tools wrote it before 2020: the signature covers the body alone.
	v1 := map[string]any{
		"iat": 1600000000, "iss": account.pub, "sub": user.pub, "type": "user", "name": "old",
		"nats": map[string]any{"pub": map[string]any{"allow": []string{"x"}}, "sub": map[string]any{}},
	}
	raw := base64.RawURLEncoding
	body := raw.EncodeToString(must(json.Marshal(v1)))
	header := raw.EncodeToString([]byte(`{"typ":"jwt","alg":"ed25519"}`))
	out["v1_user_jwt"] = header + "." + body + "." + raw.EncodeToString(must(account.kp.Sign([]byte(body))))

	response := jwt.NewAuthorizationResponseClaims(user.pub)
	response.Audience = server.pub
	response.Jwt = out["user_jwt"].(string)
	out["response_jwt"] = must(response.Encode(account.kp))
	generic := jwt.NewGenericClaims(operator.pub)
	generic.Data["accounts"] = []string{account.pub}
	out["generic_jwt"] = must(generic.Encode(operator.kp))

	nonce := "9kPnjvDLDDrA6lQ"
	out["nonce"] = nonce
	out["nonce_signature"] = raw.EncodeToString(must(user.kp.Sign([]byte(nonce))))
	sealed := must(xkey.kp.Seal([]byte("sealed by Go"), xkey.pub))
	out["sealed_for_itself"] = base64.StdEncoding.EncodeToString(sealed)

	file := must(os.Create("../golden.json"))
	encoder := json.NewEncoder(file)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(out); err != nil {
		panic(err)
	}
}
