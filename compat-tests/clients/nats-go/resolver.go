package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

// authority signs certificates.
type authority struct {
	folder string
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
}

func writePEM(file, kind string, der []byte) string {
	ok(os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return file
}

func newAuthority(name string) *authority {
	a := &authority{folder: must(os.MkdirTemp(os.Getenv("SCENARIO_DIR"), "ca-"))}
	a.key = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	a.cert = &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true}
	der := must(x509.CreateCertificate(rand.Reader, a.cert, a.cert, a.key.Public(), a.key))
	a.cert = must(x509.ParseCertificate(der))
	writePEM(a.file(), "CERTIFICATE", der)
	return a
}

func (a *authority) file() string { return filepath.Join(a.folder, "ca.pem") }

// pair makes a certificate for this machine and gives its two files.
func (a *authority) pair(name string) (string, string) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	cert := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der := must(x509.CreateCertificate(rand.Reader, cert, a.cert, key.Public(), a.key))
	base := filepath.Join(a.folder, name)
	return writePEM(base+".pem", "CERTIFICATE", der), writePEM(base+".key", "EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key)))
}

// preloaded changes the accounts of the configuration while the server runs.
func preloaded() {
	t := newTenancy()
	changed, removed, added := newPair(nkeys.PrefixByteAccount), newPair(nkeys.PrefixByteAccount), newPair(nkeys.PrefixByteAccount)
	plain := func(*jwt.AccountClaims) {}
	config := func(tokens map[string]string) string {
		lines := t.system.pub + ": " + t.systemJWT + "\n"
		for key, token := range tokens {
			lines += key + ": " + token + "\n"
		}
		return "operator: " + t.operatorJWT + "\nresolver: MEMORY\nresolver_preload: {\n" + lines + "}"
	}
	gone := t.account(removed, plain)
	s := start(config(map[string]string{changed.pub: t.account(changed, plain), removed.pub: gone}))
	defer s.stop()
	stays, leaves := admitted("of an account that stays", s, login(changed.pub, changed, nil)), admitted("of one that goes", s, login(removed.pub, removed, nil))
	denied("of one that comes", s, login(added.pub, added, nil))
	s.refuses(config(map[string]string{added.pub: "broken"}))
	check("still there", delivers(leaves, leaves, "a.1", "a.*"), true)
	admitted("once more of one that goes", s, login(removed.pub, removed, nil)).Close()
	s.reload(config(map[string]string{
		changed.pub: t.account(changed, func(c *jwt.AccountClaims) { c.Limits.Conn = 1 }),
		added.pub:   t.account(added, plain),
	}))
	check("still connected", delivers(stays, stays, "a.1", "a.*"), true)
	_, err := dial(s, login(changed.pub, changed, nil))
	check("more than it may have by now", err.Error(), "nats: maximum account active connections exceeded")
	admitted("of one that came", s, login(added.pub, added, nil)).Close()
	eventually("who is in a removed account is sent away", func() bool { return !leaves.IsConnected() })
	denied("of one that went", s, login(removed.pub, removed, nil))
	leaves.Close()
	stays.Close()
}

// resolver fetches accounts over https, from a server that wants a certificate too.
func resolver() {
	preloaded()
	t := newTenancy()
	a := newPair(nkeys.PrefixByteAccount)
	tokens := map[string]string{t.system.pub: t.systemJWT, a.pub: t.account(a, func(c *jwt.AccountClaims) { c.Limits.Conn = 1 })}
	ca := newAuthority("authority")
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	var fetched atomic.Int64
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fetched.Add(1)
		token := tokens[strings.TrimPrefix(r.URL.Path, "/jwt/v1/accounts/")]
		// It is asked for nothing at the start, to see that it is there.
		if token == "" && r.URL.Path != "/jwt/v1/accounts/" {
			w.WriteHeader(http.StatusNotFound)
		}
		w.Write([]byte(token))
	}))
	certFile, keyFile := ca.pair("server")
	web.TLS = &tls.Config{Certificates: []tls.Certificate{must(tls.LoadX509KeyPair(certFile, keyFile))},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots}
	web.StartTLS()
	defer web.Close()
	certFile, keyFile = ca.pair("client")
	own := `cert_file: "` + certFile + `", key_file: "` + keyFile + `"`
	for _, trusted := range []string{`ca_file: "` + ca.file() + `"`, "insecure: true"} {
		s := start(`operator: ` + t.operatorJWT + `
			resolver: URL(` + web.URL + `/jwt/v1/accounts/)
			resolver_tls { ` + own + `, ` + trusted + ` }`)
		before := fetched.Load()
		nc := admitted("user of a fetched account", s, login(a.pub, a, nil))
		check("fetched", fetched.Load() > before, true)
		denied("user of an unknown account", s, login(newPair(nkeys.PrefixByteAccount).pub, newPair(nkeys.PrefixByteAccount), nil))
		nc.Close()
		s.stop()
	}
}
