package redistable

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/test/peers"
)

func TestOptionsThatAreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		o    Options
		want []string // in the error
	}{
		"plain TCP to another host":   {Options{URL: "redis://db.example:6379", Password: "x"}, []string{"redis://db.example:6379", "table.redis.allow_plaintext: true"}},
		"plain TCP to an address":     {Options{URL: "redis://192.0.2.1", Password: "x"}, []string{"192.0.2.1", "rediss://"}},
		"no password":                 {Options{URL: "redis://127.0.0.1"}, []string{"redis://127.0.0.1", "table.redis.allow_no_password: true"}},
		"no password, TLS":            {Options{URL: "rediss://db.example"}, []string{"allow_no_password"}},
		"no password, socket":         {Options{URL: "unix:///run/redis.sock"}, []string{"allow_no_password"}},
		"two passwords":               {Options{URL: "redis://:topsecret@localhost", Password: "other"}, []string{"two passwords"}},
		"two users":                   {Options{URL: "redis://a:topsecret@localhost", Username: "b"}, []string{"two users"}},
		"no URL":                      {Options{Password: "x"}, []string{"redis://"}},
		"broken URL":                  {Options{URL: "redis://:topsecret@host:port"}, []string{"table.redis.url"}},
		"other scheme":                {Options{URL: "http://localhost", Password: "x"}, []string{"http://localhost"}},
		"no host":                     {Options{URL: "redis:///1", Password: "x"}, []string{"no host"}},
		"database that isn't one":     {Options{URL: "redis://localhost/one", Password: "x"}, []string{"one"}},
		"setting in the URL":          {Options{URL: "redis://localhost?max_retries=3", Password: "x"}, []string{"max_retries"}},
		"setting in the socket's URL": {Options{URL: "unix:///a?db=1&max_retries=3", Password: "x"}, []string{"max_retries"}},
		"TLS files without TLS":       {Options{URL: "redis://localhost", Password: "x", TLS: TLS{ServerName: "a"}}, []string{"table.redis.tls"}},
		"CA file that isn't there":    {Options{URL: "rediss://localhost", Password: "x", TLS: TLS{CAFile: "/nowhere"}}, []string{"table.redis.tls.ca_file", "/nowhere"}},
		"CA file that is none":        {Options{URL: "rediss://localhost", Password: "x", TLS: TLS{CAFile: "doc.go"}}, []string{"doc.go"}},
		"certificate without key":     {Options{URL: "rediss://localhost", Password: "x", TLS: TLS{CertFile: "a"}}, []string{"table.redis.tls"}},
		"prefix without hash tag":     {Options{URL: "redis://localhost", Password: "x", Prefix: "mc"}, []string{"prefix", `"mc"`}},
		"prefix with empty hash tag":  {Options{URL: "redis://localhost", Password: "x", Prefix: "{}a}"}, []string{"prefix"}},
		"negative replicas":           {Options{URL: "redis://localhost", Password: "x", Replicas: -1}, []string{"replicas -1"}},
		"negative timeout":            {Options{URL: "redis://localhost", Password: "x", Timeout: -1}, []string{"timeout"}},
		"bulk below timeout":          {Options{URL: "redis://localhost", Password: "x", Timeout: time.Second, BulkTimeout: 1}, []string{"bulk_timeout"}},
		"Sentinels without a master":  {Options{URL: "redis://localhost", Password: "x", Sentinel: Sentinel{Addresses: []string{"a:1"}}}, []string{"table.redis.sentinel.master"}},
		"a master without Sentinels":  {Options{URL: "redis://localhost", Password: "x", Sentinel: Sentinel{Master: "m"}}, []string{"table.redis.sentinel", "addresses"}},
		"a Sentinel without a port":   {Options{URL: "redis://localhost", Password: "x", Sentinel: Sentinel{Master: "m", Addresses: []string{"a"}}}, []string{`"a"`, "HOST:PORT"}},
		"a Sentinel twice":            {Options{URL: "redis://localhost", Password: "x", Sentinel: Sentinel{Master: "m", Addresses: []string{"a:1", "a:1"}}}, []string{`"a:1"`, "twice"}},
		"Sentinels behind a socket":   {Options{URL: "unix:///a", Password: "x", Sentinel: Sentinel{Master: "m", Addresses: []string{"a:1"}}}, []string{"table.redis.sentinel", "redis://"}},
		"a Sentinel's user alone":     {Options{URL: "redis://localhost", Password: "x", Sentinel: Sentinel{Master: "m", Addresses: []string{"a:1"}, Username: "u"}}, []string{"table.redis.sentinel.username"}},
		"short log":                   {Options{URL: "redis://localhost", Password: "x", LogLength: 1}, []string{"log_length 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			tb, err := Open(t.Context(), tt.o)
			if err == nil {
				tb.Close()
				t.Fatal("taken")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q doesn't say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "topsecret") {
				t.Errorf("%q tells the password", err)
			}
		})
	}
}

func TestOptionsThatAreTaken(t *testing.T) {
	for name, o := range map[string]Options{
		"loopback":               {URL: "redis://127.8.9.1", Password: "x"},
		"IPv6 loopback":          {URL: "redis://[::1]:1", Password: "x"},
		"user in the URL":        {URL: "redis://anna:x@localhost:1/3"},
		"socket":                 {URL: "unix:///run/redis.sock?db=2", Password: "x"},
		"told to use plain TCP":  {URL: "redis://192.0.2.1", Password: "x", AllowPlaintext: true},
		"told to do without one": {URL: "redis://localhost", AllowNoPassword: true},
		"TLS to another host":    {URL: "rediss://192.0.2.1", Password: "x"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := o.complete(); err != nil {
				t.Fatal(err)
			}
			r, err := o.client()
			if err != nil {
				t.Fatal(err)
			}
			if (r.TLSConfig != nil) != strings.HasPrefix(o.URL, "rediss:") || r.Password != "x" && !o.AllowNoPassword {
				t.Errorf("client: %+v", r)
			}
		})
	}
}

// A node must start while Redis is away.
func TestOpenWithoutServer(t *testing.T) {
	var log bytes.Buffer
	tb := open(t, Options{
		URL: "redis://localhost:1", Password: "topsecret",
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if !strings.Contains(log.String(), "state table can't be read at start") || strings.Contains(log.String(), "topsecret") {
		t.Errorf("log: %s", log.String())
	}
	_, err := tb.Position(t.Context())
	unavailable(t, "Position", err, "connection refused")
}

func TestTLS(t *testing.T) {
	ca, err := platformtest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, caFile, err := ca.WriteFiles(t.TempDir(), "redis.test")
	if err != nil {
		t.Fatal(err)
	}
	r := peers.StartRedis(t, peers.RedisOptions{Password: "secret", CertFile: cert, KeyFile: key, CAFile: caFile})
	good := Options{URL: r.URL(), TLS: TLS{CAFile: caFile, ServerName: "redis.test", CertFile: cert, KeyFile: key}}
	if _, err := open(t, good).Init(t.Context()); err != nil {
		t.Error(err)
	}
	// So the Sentinels, and the server that they name by its address only.
	watched := good
	watched.URL, watched.Password, watched.TLS.ServerName = "rediss://redis.test", "secret", ""
	watched.Sentinel = Sentinel{Master: peers.SentinelName, Addresses: []string{peers.StartSentinels(t, 1, r, "watch")[0].Addr}, Password: "watch"}
	if _, err := open(t, watched).Init(t.Context()); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*TLS){
		"unknown CA":     func(c *TLS) { c.CAFile = "" },
		"another name":   func(c *TLS) { c.ServerName = "other.test" },
		"no certificate": func(c *TLS) { c.CertFile, c.KeyFile = "", "" },
	} {
		t.Run(name, func(t *testing.T) {
			for _, o := range []Options{good, watched} {
				spoil(&o.TLS)
				_, err := open(t, o).Position(t.Context())
				unavailable(t, "Position", err, "")
			}
		})
	}
}
